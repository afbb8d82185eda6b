"""Opus (RFC 6716), by the libopus inside libsndfile."""

import io
from typing import Any

import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.evaluation.baselines.base import System, resample
from codec.evaluation.metrics.base import MissingError

RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz, of Opus
LOWEST, HIGHEST = 6.0, 256.0  # kbit/s of one channel: libsndfile's compression levels 1 and 0, linear between


class Opus(System):
    """Mono Opus as libsndfile configures it: application "audio", complexity 10, frames of 20 ms, constrained VBR.

    ``kbps`` is a target: speech at 16 kHz takes 5 to 9 % less (libopus 1.4, 6 to 24 kbit/s), at 48 kHz it can take
    more. Hence the bitrate is measured. Clips at other rates are resampled to the next higher one of Opus and back.
    libsndfile removes pre-skip and padding (RFC 7845, sections 4.2 and 4.4): the delay is below 0.1 ms.

    ``facts``, over all clips: ``kbps`` of the Opus packets alone, as in RTP; ``container_kbps`` of the Ogg files, page
    headers and about 0.9 kB of file header included; ``target_kbps``; ``encoder``, its name and version.
    """

    def __init__(self, kbps: float):
        if not LOWEST <= kbps <= HIGHEST:
            raise ValueError(f"libsndfile's Opus goes from {LOWEST:g} to {HIGHEST:g} kbit/s, and kbps={kbps:g}.")
        if "OPUS" not in soundfile.available_subtypes("OGG"):
            raise MissingError("Opus cannot run here (libsndfile has none): pip install soundfile, whose wheel has it")
        self.target = float(kbps)
        self.bytes = self.container_bytes = 0
        self.seconds = 0.0
        self.encoder: str | None = None

    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        rate = next((rate for rate in RATES if rate >= sample_rate), RATES[-1])
        ogg = encode(wav if rate == sample_rate else resample(wav, sample_rate, rate), rate, self.target)
        self.bytes += packet_bytes(ogg)
        self.container_bytes += len(ogg)
        self.seconds += wav.shape[-1] / sample_rate
        vendor = ogg.index(b"OpusTags") + 8  # its length in 4 bytes, then the text (RFC 7845, section 5.2)
        length = int.from_bytes(ogg[vendor : vendor + 4], "little")
        self.encoder = ogg[vendor + 4 : vendor + 4 + length].decode("utf-8", errors="replace")
        decoded = torch.from_numpy(soundfile.read(io.BytesIO(ogg), dtype="float32")[0]).view(1, 1, -1)
        decoded = decoded if rate == sample_rate else resample(decoded, rate, sample_rate)
        return F.pad(decoded, (0, wav.shape[-1] - decoded.shape[-1]))

    def facts(self) -> dict[str, Any]:
        if not self.seconds:
            return {"target_kbps": self.target}
        return {
            "kbps": self.bytes * 8 / self.seconds / 1000,
            "container_kbps": self.container_bytes * 8 / self.seconds / 1000,
            "target_kbps": self.target,
            "encoder": self.encoder,
        }


def encode(wav: Tensor, sample_rate: int, kbps: float) -> bytes:
    """wav ``[1, 1, T]`` at one of `RATES` -> an Ogg Opus file with a target of ``kbps`` kbit/s."""
    level = 1 - (kbps - LOWEST) / (HIGHEST - LOWEST)
    file = io.BytesIO()
    samples = wav.detach().float().cpu().numpy().reshape(-1)
    soundfile.write(file, samples, sample_rate, format="OGG", subtype="OPUS", compression_level=level)
    return file.getvalue()


def packet_bytes(ogg: bytes) -> int:
    """Bytes of the audio packets in an Ogg file: the payload of all pages but the first two, which contain the headers.

    An Ogg page (RFC 3533, section 6) is 27 bytes, of which the last is the number of segments, their lengths, and the
    segments. Audio begins on a page of its own (RFC 7845, section 3).
    """
    payloads, page = [], 0
    while page < len(ogg):
        lengths = ogg[page + 27 : page + 27 + ogg[page + 26]]
        payloads.append(sum(lengths))
        page += 27 + len(lengths) + sum(lengths)
    return sum(payloads[2:])
