"""What a mean over clips is worth: bootstrap intervals."""

import math
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean over `n` clips with its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(values, resamples: int = 2000, seed: int = 0, groups=None) -> Interval:
    """Mean and 95 % percentile bootstrap interval over clips (Efron and Tibshirani 1993, chapter 13).

    NaN are left out; `n` counts what remains. Without any all three numbers are NaN; of a single clip the interval is,
    because it says nothing about others. Clips count as independent, so the interval is too narrow for other speakers
    when few speakers said many clips: give `groups`, the speaker of each value, and whole groups are drawn (of a single
    group the interval is NaN).
    """
    values = np.asarray(values, dtype=np.float64)
    there = ~np.isnan(values)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    values, groups = values[there], groups[there]
    n = len(values)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    names, group = np.unique(groups, return_inverse=True)
    if len(names) == 1:
        return Interval(float(values.mean()), math.nan, math.nan, n)
    sums, counts = np.bincount(group, values), np.bincount(group)
    generator = np.random.default_rng(seed)
    block = max(1, 1_000_000 // len(names))  # resamples at a time, to bound memory
    means = []
    for start in range(0, resamples, block):
        drawn = generator.integers(len(names), size=(min(block, resamples - start), len(names)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), n)


def paired(values, others, resamples: int = 2000, seed: int = 0) -> Interval:
    """`bootstrap` of values - others, one number of each per clip, both of the same clips in the same order.

    What all systems find hard or easy in a clip cancels out, so small true differences show that two separate intervals
    would hide. Clips that lack either number are left out.
    """
    values, others = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if values.shape != others.shape:
        raise ValueError(f"Paired differences need the same clips on both sides: {len(values)} and {len(others)}.")
    return bootstrap(values - others, resamples, seed)
