import numpy as np
import pytest

from codec.evaluation.metrics.pesq import pesq_nb, pesq_wb
from tests.helpers.signals import RATE, noisy, speech


def test_long_clips_are_scored_in_pieces():
    # 25 s are two pieces of 12.5 s: bad only in the second half, the score lies half way
    wav = speech(25.0)
    half = len(wav) // 2
    damaged = noisy(wav, 5)
    mixed = np.concatenate([wav[:half], damaged[half:]])
    expected = (pesq_wb(wav[:half], wav[:half], RATE) + pesq_wb(wav[half:], damaged[half:], RATE)) / 2
    assert pesq_wb(wav, mixed, RATE) == pytest.approx(expected, abs=0.02)


def test_a_silent_piece_of_the_reference_is_left_out():
    wav = np.concatenate([speech(11.0), np.zeros(11 * RATE, dtype=np.float32)])
    assert pesq_wb(wav, wav, RATE) == pytest.approx(4.644, abs=0.001)


def test_level_and_a_constant_delay_cost_nothing():
    # P.862 aligns levels and time before it compares
    wav = speech()
    late = np.concatenate([np.zeros(RATE // 50, dtype=wav.dtype), wav[: -RATE // 50]])
    for pesq in (pesq_wb, pesq_nb):
        assert pesq(wav, wav / 4, RATE) > 4.5
        assert pesq(wav, late, RATE) > 4.5
