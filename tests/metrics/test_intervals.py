"""The bootstrap intervals: right as often as they say."""

import numpy as np
import pytest

from codec.metrics.intervals import bootstrap


def test_bootstrap_covers_the_true_mean_in_about_95_percent():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(1000):
        interval = bootstrap(generator.normal(3.0, 0.5, size=50), resamples=500, seed=seed)
        hits += interval.low <= 3.0 <= interval.high
    assert 0.915 < hits / 1000 < 0.97  # the percentile bootstrap is known to be a little narrow at n = 50


def test_bootstrap_ignores_nan_and_repeats_itself():
    values = np.random.default_rng(0).normal(size=30)
    with_nan = np.insert(values, [3, 9], np.nan)
    assert bootstrap(with_nan) == bootstrap(values)
    assert bootstrap(values).n == 30
    assert bootstrap(values).mean == pytest.approx(values.mean())
    assert bootstrap([2.0]) == (2, 2, 2, 1)
    empty = bootstrap([np.nan, np.nan])
    assert empty.n == 0
    assert np.isnan(empty[:3]).all()
