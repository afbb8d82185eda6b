"""Opus: bytes that are counted, sound that is in its place, more bits that are worth it."""

import io

import numpy as np
import pytest
import soundfile
import torch

from codec.evaluation.baselines.ogg import ogg_packets
from codec.evaluation.baselines.opus import Opus, decode, encode
from codec.evaluation.metrics.base import MissingError
from codec.evaluation.metrics.table import METRICS
from tests.helpers.signals import speechlike


def speech(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(speechlike(seconds, rate, seed)).view(1, 1, -1)


def test_ogg_packets_of_any_length_across_pages():
    """Lengths of a multiple of 255, of nothing, and of more than a page."""
    packets = [bytes([n]) * length for n, length in enumerate((1, 0, 254, 255, 256, 510, 70_000, 3))]
    table, body = [], b""
    for packet in packets:
        table += [255] * (len(packet) // 255) + [len(packet) % 255]
        body += packet
    data = b""
    while table:
        part, table = table[:255], table[255:]
        data += b"OggS" + bytes(22) + bytes([len(part)]) + bytes(part) + body[: sum(part)]
        body = body[sum(part) :]
    assert list(ogg_packets(data)) == packets
    with pytest.raises(ValueError, match="ends within a packet"):
        list(ogg_packets(data[:-1]))
    with pytest.raises(ValueError, match="no Ogg file"):
        list(ogg_packets(b"RIFF" + data))


def test_the_rate_is_counted_from_the_bytes():
    system, bare, whole = Opus(12), 0, 0
    clips = [speech(0.5, 16_000, 0), speech(0.75, 16_000, 1)]
    for clip in clips:
        system.reconstruct(clip, 16_000)
        data = encode(clip, 16_000, 12)
        head, tags, *packets = ogg_packets(data)
        assert (head[:8], tags[:8]) == (b"OpusHead", b"OpusTags")
        pages = data.count(b"OggS")
        segments = sum(len(p) // 255 + 1 for p in (head, tags, *packets))
        assert len(data) == 27 * pages + segments + sum(map(len, (head, tags, *packets)))
        assert len(packets) == pytest.approx(clip.shape[-1] / 16_000 / 0.02, abs=2)  # frames of 20 ms
        bare, whole = bare + sum(map(len, packets)), whole + len(data)
    facts = system.facts()
    assert facts["kbps"] == bare * 8 / 1.25 / 1000
    assert facts["container_kbps"] == whole * 8 / 1.25 / 1000
    assert facts["target_kbps"] == 12
    assert facts["encoder"].startswith("libopus")
    again = Opus(12)
    for clip in clips:
        again.reconstruct(clip, 16_000)
    assert again.facts() == facts
    assert Opus(12).facts() == {"target_kbps": 12}


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_the_target_is_met_roughly_and_in_order(rate):
    counted = []
    for kbps in (6, 8, 12, 16, 24):
        system = Opus(kbps)
        system.reconstruct(speech(2.0, rate), rate)
        counted.append(system.facts()["kbps"])
        assert 0.7 * kbps < counted[-1] < 1.3 * kbps
    assert counted == sorted(counted)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_what_comes_out_is_where_it_was_and_as_long(rate):
    wav = speech(1.0003, rate)
    out = Opus(24).reconstruct(wav, rate)
    assert out.shape == wav.shape
    assert out.dtype == torch.float32
    x, y = wav[0, 0].double().numpy(), out[0, 0].double().numpy()
    size = 4 * len(x)
    spectrum = np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size))
    correlation = np.fft.irfft(spectrum, 4 * size)  # at four times the rate
    lag = (np.argmax(correlation) + 2 * size) % (4 * size) - 2 * size
    assert abs(lag / (4 * rate)) < 1e-4
    assert np.std(y) == pytest.approx(np.std(x), rel=0.1)


@pytest.mark.parametrize("samples", [1, 312, 320, 321, 1601])
def test_clips_of_any_length(samples):
    wav = speech(0.2, 16_000)[..., :samples]
    assert Opus(8).reconstruct(wav, 16_000).shape == wav.shape


def test_more_bits_sound_better():
    wav = speech(2.0, 16_000)
    scores = {}
    for kbps in (6, 24):
        out = Opus(kbps).reconstruct(wav, 16_000)
        for name in ("pesq_wb", "mel_distance"):
            scores[name, kbps] = METRICS[name].function(wav[0, 0].numpy(), out[0, 0].numpy(), 16_000)
    assert scores["pesq_wb", 24] > scores["pesq_wb", 6] + 0.2
    assert scores["mel_distance", 24] < scores["mel_distance", 6]


def test_soundfile_reads_what_is_written():
    wav = speech(0.5, 16_000)
    data = encode(wav, 16_000, 16)
    assert soundfile.info(io.BytesIO(data)).subtype == "OPUS"
    assert decode(data).shape == wav.shape


def test_what_cannot_be_is_said(monkeypatch):
    for kbps in (5.9, 257):
        with pytest.raises(ValueError, match="from 6 to 256"):
            Opus(kbps)
    monkeypatch.setattr(soundfile, "available_subtypes", lambda form: {"VORBIS": "Vorbis"})
    with pytest.raises(MissingError, match="pip install soundfile"):
        Opus(16)
