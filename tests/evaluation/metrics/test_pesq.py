"""PESQ in pieces, and what P.862 aligns before it compares."""

import numpy as np
import pytest

from codec.evaluation.metrics.pesq import pesq_nb, pesq_wb
from tests.helpers.signals import RATE, noisy, speech


def test_long_clips_are_scored_in_pieces():
    # 22 s are two pieces of 11 s: where only the second is bad, the score lies half way
    wav = speech(22.0)
    half, damaged = len(wav) // 2, noisy(wav, 5)
    mixed = np.concatenate([wav[:half], damaged[half:]])
    expected = (4.644 + pesq_wb(wav[half:], damaged[half:], RATE)) / 2
    assert pesq_wb(wav, mixed, RATE) == pytest.approx(expected, abs=0.02)
    wav = np.concatenate([speech(11.0), np.zeros(11 * RATE, dtype=np.float32)])  # a silent piece does not count
    assert pesq_wb(wav, wav, RATE) == pytest.approx(4.644, abs=0.001)


@pytest.mark.parametrize("pesq", [pesq_wb, pesq_nb])
def test_level_and_a_constant_delay_cost_nothing(pesq):
    wav = speech()
    assert pesq(wav, wav / 4, RATE) > 4.5
    assert pesq(wav, np.concatenate([np.zeros(RATE // 50, dtype=wav.dtype), wav[: -RATE // 50]]), RATE) > 4.5
