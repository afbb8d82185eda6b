"""Opus, the speech and audio codec of the internet (RFC 6716), by libopus within libsndfile."""

import io
from typing import Any

import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.evaluation.baselines.base import System, resample
from codec.evaluation.baselines.ogg import ogg_packets
from codec.evaluation.metrics.base import MissingError

RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz, those that the encoder takes
LOWEST, HIGHEST = 6.0, 256.0  # kbit/s, of one channel


class Opus(System):
    """Mono Opus in an Ogg file in memory, as libsndfile sets the encoder.

    That is ``OPUS_APPLICATION_AUDIO`` (not VOIP, which a call would use), complexity 10, frames of 20 ms, and
    libopus's default of constrained variable bitrate. Through libsndfile 1.2 only the target can be chosen
    (compression level 1 is 6 kbit/s, 0 is 256, linear between them); constant bitrate and longer frames cannot.
    Speech is coded up to 4 kHz only at 6 and 8 kbit/s. A target is not a rate: speech at 16 kHz takes 5 to 9 per cent
    less (libopus 1.4, targets of 6 to 24), at 48 kHz it can take more. Hence the rate is counted.

    Clips of a rate that the encoder does not take are resampled to the next higher one (48 kHz at most) and back.
    Pre-skip and padding (RFC 7845, sections 4.2 and 4.4) are removed by libsndfile: what comes out is aligned with what
    went in to less than 0.1 ms.

    ``facts``, over the clips that went by:
        kbps: kbit/s of the Opus packets alone, their own table-of-contents bytes included. A transport that delimits
            packets by itself, as RTP does, carries just these.
        container_kbps: kbit/s of all bytes of the files: pages, and headers of some 0.9 kB in each.
        target_kbps: what the encoder was asked for.
        encoder: its name and version, as it signs its files.

    Raises:
        ValueError: if ``kbps`` is not between 6 and 256.
        MissingError: if this libsndfile was built without Opus.
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
        sent = wav if rate == sample_rate else resample(wav, sample_rate, rate)
        data = encode(sent, rate, self.target)
        heard = decode(data)
        self._count(data, wav.shape[-1] / sample_rate)
        heard = heard if rate == sample_rate else resample(heard, rate, sample_rate)
        return F.pad(heard, (0, wav.shape[-1] - heard.shape[-1]))

    def facts(self) -> dict[str, Any]:
        if not self.seconds:
            return {"target_kbps": self.target}
        return {
            "kbps": self.bytes * 8 / self.seconds / 1000,
            "container_kbps": self.container_bytes * 8 / self.seconds / 1000,
            "target_kbps": self.target,
            "encoder": self.encoder,
        }

    def _count(self, data: bytes, seconds: float) -> None:
        _, tags, *packets = ogg_packets(data)  # OpusHead, OpusTags, sound (RFC 7845, section 5)
        length = int.from_bytes(tags[8:12], "little")
        self.encoder = tags[12 : 12 + length].decode("utf-8", errors="replace")
        self.bytes += sum(map(len, packets))
        self.container_bytes += len(data)
        self.seconds += seconds


def encode(wav: Tensor, sample_rate: int, kbps: float) -> bytes:
    """wav ``[1, 1, T]`` at one of `RATES` -> an Ogg Opus file with a target of ``kbps`` kbit/s."""
    level = 1 - (kbps - LOWEST) / (HIGHEST - LOWEST)
    file = io.BytesIO()
    samples = wav.detach().float().cpu().numpy().reshape(-1)
    soundfile.write(file, samples, sample_rate, format="OGG", subtype="OPUS", compression_level=level)
    return file.getvalue()


def decode(data: bytes) -> Tensor:
    """An Ogg Opus file of one channel -> wav ``[1, 1, T]`` float32 at the rate that it was made from."""
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return torch.from_numpy(samples).view(1, 1, -1)
