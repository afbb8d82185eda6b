"""Bootstrap confidence intervals of means over clips."""

import math
import statistics
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

    NaN are ignored; `n` counts the rest. With `groups`, the speaker of each value, whole groups are resampled; without,
    clips count as independent, and the interval is too narrow for other speakers where few speakers have many clips
    each. Limits are NaN for a single value or group; all three numbers are NaN without values.
    """
    values = np.asarray(values, dtype=np.float64)
    valid = ~np.isnan(values)
    groups = np.arange(len(values)) if groups is None else np.asarray(groups)
    values, groups = values[valid], groups[valid]
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
        chosen = generator.integers(len(names), size=(min(block, resamples - start), len(names)))
        means.append(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), n)


def paired(values, others, resamples: int = 2000, seed: int = 0) -> Interval:
    """`bootstrap` of values - others, paired by clip; clips that lack either number are ignored.

    The difficulty of a clip, common to all systems, cancels, which shows small differences that separate intervals
    hide.
    """
    values, others = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if values.shape != others.shape:
        raise ValueError(f"Paired differences need the same clips on both sides: {len(values)} and {len(others)}.")
    return bootstrap(values - others, resamples, seed)


def t_interval(values) -> Interval:
    """Mean with its 95 % interval by Student's t (1908); limits are NaN for a single value, all NaN without values."""
    from scipy import stats  # takes half a second

    values = [float(value) for value in values]
    n = len(values)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = statistics.fmean(values)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)
