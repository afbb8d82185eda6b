"""STOI and ESTOI: too little speech, and the random numbers of pystoi."""

import numpy as np
import pytest

from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.intelligibility import estoi, stoi
from tests.helpers.signals import RATE, noisy, speech


def test_a_clip_with_too_little_speech_has_no_stoi():
    wav = np.zeros(2 * RATE)
    wav[RATE : RATE + RATE // 4] = speech()[RATE // 2 : RATE // 2 + RATE // 4]
    with pytest.raises(MetricError, match="less"):
        stoi(wav, wav, RATE)


def test_estoi_is_deterministic_and_keeps_the_global_generator():
    wav = speech(2.0)
    gaps = np.where(np.arange(len(wav)) % 8000 < 4000, 0, noisy(wav, 10))  # bands without energy get noise
    np.random.seed(5)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert estoi(wav, gaps, RATE) == estoi(wav, gaps, RATE)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
