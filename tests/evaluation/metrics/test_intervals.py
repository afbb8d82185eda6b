"""The bootstrap intervals: right as often as they say, and narrower for pairs."""

import numpy as np
import pytest

from codec.evaluation.metrics.intervals import bootstrap, paired


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
    one = bootstrap([2.0, np.nan])
    assert (one.mean, one.n) == (2, 1)
    assert np.isnan([one.low, one.high]).all()  # a single clip says nothing about others
    empty = bootstrap([np.nan, np.nan])
    assert empty.n == 0
    assert np.isnan(empty[:3]).all()


def test_groups_are_drawn_whole():
    """Ten speakers whose clips are all alike are ten numbers, however many clips there are."""
    generator = np.random.default_rng(0)
    speakers = generator.normal(size=10)
    groups = np.repeat([f"s{i}" for i in range(10)], 30)
    grouped = bootstrap(np.repeat(speakers, 30), groups=groups)
    alone = bootstrap(speakers)
    assert (grouped.mean, grouped.n) == (pytest.approx(alone.mean), 300)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=1e-6)
    assert bootstrap(np.repeat(speakers, 30)).high - alone.mean < 0.5 * (alone.high - alone.mean)
    with_nan = bootstrap([1.0, np.nan, 3.0, 5.0], groups=["a", "b", "b", "a"])
    assert (with_nan.mean, with_nan.low, with_nan.high, with_nan.n) == (3, 3, 3, 3)
    assert np.isnan(bootstrap([1.0, 2.0], groups=["a", "a"]).low)


def test_pairs_show_a_small_difference_that_separate_intervals_hide():
    generator = np.random.default_rng(0)
    clips = generator.normal(2.5, 0.5, size=40)  # some clips are hard for everyone
    worse, better = clips, clips + 0.05 + 0.02 * generator.normal(size=40)
    assert bootstrap(better).low < bootstrap(worse).high
    difference = paired(better, worse)
    assert difference.low > 0
    assert difference.mean == pytest.approx(0.05, abs=0.02)
    opposite = paired(worse, better)
    assert opposite.low == pytest.approx(-difference.high)


def test_pairs_find_no_difference_where_there_is_none_in_about_95_percent():
    generator = np.random.default_rng(1)
    false = 0
    for seed in range(400):
        clips = generator.normal(size=40)
        interval = paired(clips + generator.normal(size=40), clips + generator.normal(size=40), 500, seed)
        false += not interval.low <= 0 <= interval.high
    assert 0.02 < false / 400 < 0.1


def test_pairs_need_both_scores_and_the_same_clips():
    assert paired([1.0, np.nan, 3.0, 4.0], [0.5, 1.0, np.nan, 3.5]) == (0.5, 0.5, 0.5, 2)
    with pytest.raises(ValueError, match="same clips"):
        paired([1.0, 2.0], [1.0])
