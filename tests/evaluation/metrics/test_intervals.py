"""Intervals over speakers: their coverage, what they are equal to, and that they are narrower for pairs."""

import math

import numpy as np
import pytest
from scipy import stats

from bench.coverage import clips_bootstrap, coverage, crossed_coverage, robust_t, speakers_bootstrap
from codec.evaluation.metrics.intervals import by_speaker, crossed, mean_interval, paired, ratio


@pytest.mark.parametrize(("sizes", "noise"), [("6 each", "normal, 0"), ("4 to 8", "gamma, 1")])
def test_coverage_with_12_speakers_is_nominal_where_that_of_clips_is_not(sizes, noise):
    case = 12, 0.8, sizes, noise, 1000
    assert 0.92 < coverage(robust_t, *case) < 0.97  # a standard error of 0.007
    assert coverage(speakers_bootstrap, *case) < 0.915
    assert coverage(clips_bootstrap, *case) < 0.7


def test_coverage_with_one_speaker_of_half_the_clips_and_with_five():
    assert 0.93 < coverage(robust_t, 12, 0.8, "2, one has half", "normal, 0") < 0.98
    assert 0.93 < coverage(robust_t, 5, 0.95, "6 each", "normal, 0") < 0.97


@pytest.mark.parametrize("seeds", [2, 3])
def test_coverage_over_seeds_and_speakers(seeds):
    assert crossed_coverage(seeds, 12, (0.1, 0.4, 0.1), 400) > 0.94


def unequal(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and speakers of 30 clips, 1 to 8 of each speaker."""
    generator = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(8), [1, 2, 3, 4, 8, 5, 4, 3])
    return generator.normal(size=8)[speakers] + 0.3 * generator.normal(size=30), speakers


def test_one_clip_of_each_speaker_is_the_plain_t_interval():
    values, _ = unequal()
    expected = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    for groups in (None, [f"s{n}" for n in range(30)]):
        assert mean_interval(values, groups) == (pytest.approx(values.mean()), *map(pytest.approx, expected), 30, 30)


def test_equal_speakers_are_the_t_interval_of_their_means():
    """Ten speakers whose clips are all alike are ten numbers, however many clips there are."""
    speakers = np.random.default_rng(0).normal(size=10)
    alone, found = mean_interval(speakers), mean_interval(np.repeat(speakers, 30), np.repeat(np.arange(10), 30))
    assert found == (*map(pytest.approx, alone[:3]), 300, 10)


def test_unequal_speakers_agree_with_the_matrices_of_bell_and_mccaffrey():
    values, speakers = unequal()
    same = speakers[:, None] == speakers
    hat = np.full((30, 30), 1 / 30)
    rows = []  # the estimate's standard error is the norm of these rows times the residuals
    for one in range(8):
        own = speakers == one
        eigenvalues, vectors = np.linalg.eigh((np.eye(30) - hat)[np.ix_(own, own)])
        adjusted = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        rows.append((adjusted.sum(0) / 30) @ (np.eye(30) - hat)[own])
    assert same.sum() == 144
    variance = np.square(rows @ values).sum()
    products = np.array(rows) @ np.array(rows).T
    freedom = np.trace(products) ** 2 / np.square(products).sum()
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    found = mean_interval(values, speakers)
    assert [found.high - found.mean, found.mean - found.low] == pytest.approx([half, half])


def test_the_order_of_the_clips_is_without_effect():
    values, speakers = unequal()
    order = np.random.default_rng(1).permutation(30)
    for function in (mean_interval, lambda v, g: paired(v, np.square(v), g), lambda v, g: ratio(v, 9 + v, g)):
        assert function(values, speakers) == pytest.approx(function(values[order], speakers[order]), rel=1e-12)


def test_nan_are_left_out_and_one_clip_or_speaker_has_no_interval():
    values, speakers = unequal()
    gaps = np.insert(values, [3, 9], np.nan), np.insert(speakers, [3, 9], 99)
    assert mean_interval(*gaps) == mean_interval(values, speakers)
    assert mean_interval([2.0, np.nan]) == pytest.approx((2, np.nan, np.nan, 1, 1), nan_ok=True)
    assert mean_interval([np.nan, np.nan]) == pytest.approx((np.nan, np.nan, np.nan, 0, 0), nan_ok=True)
    assert mean_interval([]).n == 0
    assert mean_interval([1.0, 2.0], ["a", "a"]) == pytest.approx((1.5, np.nan, np.nan, 2, 1), nan_ok=True)


def test_pairs_show_a_small_difference_that_separate_intervals_hide():
    generator, (hard, speakers) = np.random.default_rng(0), unequal()
    worse = 2.5 + hard  # some speakers are hard for every system
    better = worse + 0.05 + 0.02 * generator.normal(size=30)
    difference = paired(better, worse, speakers)
    assert mean_interval(better, speakers).low < mean_interval(worse, speakers).high
    assert difference.low > 0
    assert difference.mean == pytest.approx(0.05, abs=0.02)
    assert paired(worse, better, speakers).low == pytest.approx(-difference.high)
    assert paired([1.0, np.nan, 3.0, 4.0], [0.5, 1.0, np.nan, 3.5]) == (0.5, 0.5, 0.5, 2, 2)
    with pytest.raises(ValueError, match="same clips"):
        paired([1.0, 2.0], [1.0])


def test_pairs_count_speakers_not_clips():
    """A system that wins by as much as speakers differ: two hundred clips are decided, their five speakers are not."""
    speakers = np.repeat(np.arange(5), 40)
    gain = np.array([0.4, -0.3, 0.5, -0.1, 0.3])[speakers] + 0.01 * np.random.default_rng(0).normal(size=200)
    assert paired(gain, np.zeros(200)).low > 0
    assert paired(gain, np.zeros(200), speakers).low < 0


def test_crossed_is_wider_than_over_either_and_weighs_rows_alike():
    table = np.random.default_rng(0).normal(size=(3, 12)) + np.arange(3)[:, None]
    found, rows, columns = crossed(table), mean_interval(table.mean(1)), mean_interval(table.mean(0))
    assert found[::3] == (pytest.approx(rows.mean), 3)
    assert found.low < min(rows.low, columns.low)
    table[0, 1:] = np.nan
    assert crossed(table).mean == pytest.approx(np.mean([table[0, 0], table[1].mean(), table[2].mean()]))
    assert crossed(table[:, :6], "aab").groups == 2
    assert math.isnan(crossed(table[1:2]).low)
    assert math.isnan(crossed(table, None, ["one speaker"] * 12).low)
    assert crossed(np.zeros((0, 5))).n == 0


def test_a_ratio_has_an_interval_where_its_denominator_is_not_0():
    values, speakers = unequal()
    small = 1e-3 * values  # so that the ratio is nearly linear
    found = ratio(2 + small, np.full(30, 4.0), speakers)
    assert found == pytest.approx((*(x / 4 for x in mean_interval(2 + small, speakers)[:3]), 30, 8))
    assert ratio(3 * (1 + small), 1 + small, speakers)[:3] == pytest.approx((3, 3, 3))
    assert math.isnan(ratio(np.ones(30), values, speakers).low)
    assert math.isnan(ratio(np.ones(30), np.zeros(30), speakers).mean)
    assert ratio([np.nan, 1.0], [1.0, np.nan]).n == 0


@pytest.mark.parametrize(
    ("speakers", "groups", "word"),
    [
        (["a", "b", "a"], ["a", "b", "a"], "2 speakers"),
        ([0, 1, 0], [0, 1, 0], "2 speakers"),  # 0 is a speaker
        ([None, "", math.nan], None, "unknown"),
        (["a", "a"], None, "only speaker"),
        (["a", "a", ""], ["a", "a", ("", 2)], r"unknown speakers (1)"),
    ],
)
def test_clips_of_unknown_speakers_are_independent_and_that_is_said(speakers, groups, word):
    found = by_speaker(speakers)
    assert found[0] == groups
    assert word in found[1]
