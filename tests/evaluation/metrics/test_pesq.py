"""PESQ in pieces, and what P.862 aligns before it compares."""

import numpy as np
import pytest

from codec.evaluation.metrics import pesq
from codec.evaluation.metrics.pesq import pesq_nb, pesq_wb
from tests.helpers.signals import RATE, noisy, speech


def test_long_clips_are_scored_in_pieces(monkeypatch):
    """Where only the second of two pieces is bad, the score lies half way; a silent piece does not count."""
    monkeypatch.setattr(pesq, "PESQ_PIECE", 3.0)
    wav, damaged = speech(5.0), noisy(speech(5.0), 5)
    half = len(wav) // 2
    expected = (4.644 + pesq_wb(wav[half:], damaged[half:], RATE)) / 2
    assert pesq_wb(wav, np.concatenate([wav[:half], damaged[half:]]), RATE) == pytest.approx(expected, abs=0.02)
    paused = np.concatenate([wav[:half], np.zeros(half, np.float32)])
    assert pesq_wb(paused, paused, RATE) == pytest.approx(4.644, abs=0.001)


@pytest.mark.parametrize("metric", [pesq_wb, pesq_nb])
def test_level_and_a_constant_delay_cost_nothing(metric):
    wav = speech()
    assert metric(wav, wav / 4, RATE) > 4.5
    assert metric(wav, np.concatenate([np.zeros(RATE // 50, dtype=wav.dtype), wav[: -RATE // 50]]), RATE) > 4.5
