"""Spectrograms: one colour scale for all, also for short, silent and damaged waves."""

import math

import numpy as np

from codec.evaluation.spectrogram import comparison, spectrograms, webp
from tests.helpers.speech import RATE, clip

WAV = clip(0)["wav"][0].numpy()


def brightness(image: np.ndarray) -> np.ndarray:
    """0 to 1: the colour map grows in the sum of its channels."""
    return image.astype(float).sum(axis=-1) / (3 * 255)


def test_waves_share_one_scale_and_a_lower_rate_is_black_above_its_band():
    loud, quiet, narrow = spectrograms([(WAV, RATE), (WAV / 100, RATE), (WAV[::2], RATE // 2)])
    assert loud.shape == quiet.shape
    assert brightness(quiet).mean() < brightness(loud).mean()
    assert brightness(narrow)[:20].max() < 0.05 < brightness(loud)[:20].max()
    assert webp(loud)[:4] == b"RIFF"


def test_a_comparison_takes_any_estimate():
    image = comparison(WAV, WAV / 10, RATE)
    assert image.shape[0] == 2 * 160 + 2
    assert brightness(image[:160]).mean() > brightness(image[162:]).mean()
    for estimate in (np.zeros(100), np.full(100, math.nan), np.full(100, math.inf)):
        assert comparison(WAV[:100], estimate, RATE).dtype == np.uint8
