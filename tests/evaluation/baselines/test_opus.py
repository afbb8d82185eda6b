"""Opus: a bitrate counted from its packets, no delay, more bits that sound better."""

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch

from codec.evaluation.baselines.opus import Opus, encode, packet_bytes
from codec.evaluation.metrics.base import MissingError
from codec.evaluation.metrics.table import METRICS
from tests.helpers.signals import speechlike


def speech(seconds: float, rate: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(speechlike(seconds, rate, seed)).view(1, 1, -1)


def test_packets_are_counted_without_headers_across_pages():
    pages, audio = [[19], [255, 255, 3]], [[255, 0, 80, 81], [255] * 255, [7]]
    ogg = b"".join(b"OggS" + bytes(22) + bytes([len(page), *page]) + bytes(sum(page)) for page in pages + audio)
    assert packet_bytes(ogg) == sum(map(sum, audio))


def test_facts_are_over_all_clips():
    clips = [speech(0.5, 16_000, 0), speech(0.75, 16_000, 1)]
    files = [encode(clip, 16_000, 12) for clip in clips]
    systems = [Opus(12), Opus(12)]
    assert systems[0].facts() == {"target_kbps": 12}
    for system in systems:
        for clip in clips:
            system.reconstruct(clip, 16_000)
    facts = systems[0].facts()
    assert facts == systems[1].facts()
    assert facts["kbps"] == sum(map(packet_bytes, files)) * 8 / 1.25 / 1000
    assert facts["container_kbps"] == sum(map(len, files)) * 8 / 1.25 / 1000
    assert facts["encoder"].startswith("libopus")


@pytest.mark.parametrize("rate", [8_000, 22_050])
def test_length_and_position_are_kept(rate):
    wav = speech(1.0003, rate)
    out = Opus(24).reconstruct(wav, rate)
    assert (out.shape, out.dtype) == (wav.shape, torch.float32)
    x, y = wav[0, 0].double().numpy(), out[0, 0].double().numpy()
    correlation = scipy.signal.correlate(y, x)
    assert abs(np.argmax(correlation) - (len(x) - 1)) <= 1e-4 * rate
    assert np.std(y) == pytest.approx(np.std(x), rel=0.1)
    for samples in (1, 321):
        assert Opus(8).reconstruct(wav[..., :samples], rate).shape == (1, 1, samples)


def test_more_bits_sound_better():
    wav = speech(1.0, 16_000)
    scores, rates = [], []
    for target in (6, 12, 24):
        system = Opus(target)
        out = system.reconstruct(wav, 16_000)
        scores.append(METRICS["mel_distance"].function(wav[0, 0].numpy(), out[0, 0].numpy(), 16_000))
        rates.append(system.facts()["kbps"])
        assert 0.7 * target < rates[-1] < 1.3 * target
    assert scores == sorted(scores, reverse=True)
    assert rates == sorted(rates)


def test_unsupported_rates_and_builds_are_refused(monkeypatch):
    for kbps in (5.9, 257):
        with pytest.raises(ValueError, match="6 to 256"):
            Opus(kbps)
    monkeypatch.setattr(soundfile, "available_subtypes", lambda form: {"VORBIS": "Vorbis"})
    with pytest.raises(MissingError, match="pip install soundfile"):
        Opus(16)
