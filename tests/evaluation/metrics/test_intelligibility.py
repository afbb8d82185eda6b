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


def test_estoi_repeats_itself_and_leaves_the_global_generator_alone():
    wav = speech()
    # bands without energy are filled with that noise
    gaps = np.where(np.arange(len(wav)) % 8000 < 4000, 0, noisy(wav, 10))
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first = estoi(wav, gaps, RATE)
    assert np.random.random() == expected  # noqa: NPY002
    assert estoi(wav, gaps, RATE) == first
