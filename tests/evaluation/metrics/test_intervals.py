"""Bootstrap intervals: their coverage, and that they are narrower for pairs."""

import numpy as np
import pytest

from codec.evaluation.metrics.intervals import bootstrap, paired


def test_coverage_of_the_true_mean_is_about_95_percent():
    generator = np.random.default_rng(0)
    intervals = [bootstrap(generator.normal(3.0, 0.5, size=50), 300, seed) for seed in range(300)]
    covered = np.mean([interval.low <= 3.0 <= interval.high for interval in intervals])
    assert 0.91 < covered < 0.975  # the percentile bootstrap is known to be a little narrow at n = 50


def test_nan_are_left_out_and_one_clip_has_no_interval():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap(np.insert(values, [3, 9], np.nan)) == bootstrap(values)
    assert bootstrap(values)[::3] == (pytest.approx(values.mean()), 30)
    assert bootstrap([2.0, np.nan]) == pytest.approx((2, np.nan, np.nan, 1), nan_ok=True)
    assert bootstrap([np.nan, np.nan]) == pytest.approx((np.nan, np.nan, np.nan, 0), nan_ok=True)


def test_groups_are_resampled_whole():
    """Ten speakers whose clips are all alike are ten numbers, however many clips there are."""
    speakers = np.random.default_rng(0).normal(size=10)
    clips, groups = np.repeat(speakers, 30), np.repeat([f"s{i}" for i in range(10)], 30)
    grouped, alone = bootstrap(clips, groups=groups), bootstrap(speakers)
    assert grouped == pytest.approx((*alone[:3], 300), rel=1e-6)
    assert bootstrap(clips).high - alone.mean < 0.5 * (alone.high - alone.mean)
    assert bootstrap([1.0, np.nan, 3.0, 5.0], groups=["a", "b", "b", "a"]) == (3, 3, 3, 3)
    assert np.isnan(bootstrap([1.0, 2.0], groups=["a", "a"]).low)


def test_pairs_show_a_small_difference_that_separate_intervals_hide():
    generator = np.random.default_rng(0)
    worse = generator.normal(2.5, 0.5, size=40)  # some clips are hard for every system
    better = worse + 0.05 + 0.02 * generator.normal(size=40)
    difference = paired(better, worse)
    assert bootstrap(better).low < bootstrap(worse).high
    assert difference.low > 0
    assert difference.mean == pytest.approx(0.05, abs=0.02)
    assert paired(worse, better).low == pytest.approx(-difference.high)
    assert paired([1.0, np.nan, 3.0, 4.0], [0.5, 1.0, np.nan, 3.5]) == (0.5, 0.5, 0.5, 2)
    with pytest.raises(ValueError, match="same clips"):
        paired([1.0, 2.0], [1.0])
