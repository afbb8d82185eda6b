"""Spectrograms: one colour scale for all, also for short, silent and damaged waves."""

import math

import numpy as np

from codec.evaluation.spectrogram import RANGE_DB, comparison, spectrograms, webp
from tests.helpers.speech import RATE, clip

WAV = clip(0)["wav"][0].numpy()


def brightness(image: np.ndarray) -> np.ndarray:
    """0 to 1: the colour map grows in the sum of its channels."""
    return image.astype(float).sum(axis=-1) / (3 * 255)


def test_waves_share_one_scale():
    loud, quiet = spectrograms([(WAV, RATE), (WAV / 100, RATE)])
    assert loud.shape == quiet.shape
    assert loud.shape[0] == 96
    assert brightness(quiet).mean() < brightness(loud).mean()
    levels = np.unique(loud.reshape(-1, 3), axis=0)
    assert len(levels) > RANGE_DB  # of 256 colours
    assert webp(loud)[:4] == b"RIFF"


def test_a_lower_rate_is_black_above_its_band():
    wide, narrow = spectrograms([(WAV, RATE), (WAV[::2], RATE // 2)])
    assert brightness(narrow)[:20].max() < 0.05
    assert brightness(wide)[:20].max() > 0.05


def test_a_comparison_takes_any_estimate():
    image = comparison(WAV, WAV / 10, RATE)
    assert image.shape[0] == 2 * 160 + 2
    assert brightness(image[:160]).mean() > brightness(image[162:]).mean()
    for estimate in (np.zeros(100), np.full(100, math.nan), np.full(100, math.inf)):
        assert comparison(WAV[:100], estimate, RATE).dtype == np.uint8
