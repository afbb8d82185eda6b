"""Means with 95 % confidence intervals, for scores that come in groups: the clips of a speaker are alike.

The standard error is cluster-robust with the correction CR2, the quantile Student's t with the degrees of freedom of
Bell and McCaffrey (Survey Methodology 28(2), 2002; Imbens and Kolesar, Review of Economics and Statistics 98(4), 2016).
With groups of one clip each this is the t-interval of the clips, with groups of equal size that of the groups' means.
`bench/coverage.py` compares it with bootstraps and a mixed model.
"""

import math
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean over `n` values with its 95 % confidence interval over `groups` independent groups of them."""

    mean: float
    low: float
    high: float
    n: int
    groups: int = 0


def mean_interval(values, groups: Iterable[Hashable] | None = None) -> Interval:
    """Mean of values with an interval over `groups`, the group of each value; None: values are independent.

    NaN are ignored; `n` counts the rest. The interval is of the mean over values, so that a group weighs as its size.
    Limits are NaN for a single group; all three numbers are NaN without values.
    """
    from scipy.special import stdtrit  # the quantile of Student's t; here, as it takes a tenth of a second

    values = np.asarray(values, dtype=np.float64)
    valid, numbers = ~np.isnan(values), {}
    groups = range(len(values)) if groups is None else list(groups)
    group = [numbers.setdefault(g, len(numbers)) for g, known in zip(groups, valid, strict=True) if known]
    values, count = values[valid], len(numbers)
    mean = math.fsum(values) / len(values) if count else math.nan
    if count < 2:
        return Interval(mean, math.nan, math.nan, len(values), count)
    share = np.bincount(group) / len(values)
    variance = math.fsum(np.square(np.bincount(group, values - mean) / len(values)) / (1 - share))
    # Satterthwaite's degrees of freedom for independent values of equal variance, in closed form
    weight = np.square(share) / (1 - share)
    freedom = 1 / (np.square(share).sum() + weight.sum() ** 2 - np.square(weight).sum())
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return Interval(mean, mean - half, mean + half, len(values), count)


def paired(values, others, groups: Iterable[Hashable] | None = None) -> Interval:
    """`mean_interval` of values - others, paired by clip; clips that lack either number are ignored.

    What is common to all systems in a clip or a speaker cancels, which shows differences that separate intervals hide.
    """
    values, others = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if values.shape != others.shape:
        raise ValueError(f"Paired differences need the same clips on both sides: {len(values)} and {len(others)}.")
    return mean_interval(values - others, groups)


def crossed(table, rows: Iterable[Hashable] | None = None, columns: Iterable[Hashable] | None = None) -> Interval:
    """Mean over the rows' means of a table [rows, columns] with an interval over groups of rows and of columns.

    Rows and columns (runs and clips, listeners and clips) are samples of others alike: the squares of the half widths
    over either add up (Zou and Donner, Statistics in Medicine 27(10), 2008), which counts what varies from cell to cell
    twice, rather than not at all. `n` and `groups` are of the rows. NaN are ignored; a single group of rows or columns
    has no interval.
    """
    table = np.ma.masked_invalid(np.atleast_2d(np.asarray(table, dtype=np.float64)))
    found, across = (mean_interval(table.mean(axis=1 - i).filled(math.nan), g) for i, g in enumerate((rows, columns)))
    half = math.hypot(found.high - found.mean, across.high - across.mean)
    return found._replace(low=found.mean - half, high=found.mean + half)


def ratio(values, others, groups: Iterable[Hashable] | None = None) -> Interval:
    """Ratio of two means over the same clips, by linearisation (Taylor; Cochran 1977, Sampling Techniques, chapter 6).

    No interval where that of the denominator includes 0, and NaN where the denominator is 0.
    """
    values, others = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    valid = ~np.isnan(values - others)
    values, others = np.where(valid, values, math.nan), np.where(valid, others, math.nan)
    below = mean_interval(others, groups)
    if not below.mean:  # NaN, without values, goes on
        return Interval(math.nan, math.nan, math.nan, below.n, below.groups)
    quotient = mean_interval(values).mean / below.mean
    found = mean_interval(quotient + (values - quotient * others) / below.mean, groups)
    return found if below.low > 0 or below.high < 0 else found._replace(low=math.nan, high=math.nan)


def by_speaker(speakers: Iterable[Hashable | None]) -> tuple[list[Hashable] | None, str]:
    """Groups of clips for an interval over speakers, and the words for what it is over.

    A clip of an unknown speaker (None, NaN or "") is a group of its own. All are, and the groups None, where no speaker
    is known, or there is one only.
    """
    speakers = [None if s is None or s != s or s == "" else s for s in speakers]
    count, unknown = len(set(speakers) - {None}), speakers.count(None)
    if not count:
        return None, "clips (speakers unknown: clips counted as independent)"
    if count == 1 and not unknown:
        return None, "clips of the only speaker (not across speakers: nothing is said about other voices)"
    rest = f", and clips of unknown speakers ({unknown}), counted as independent" if unknown else ""
    return [("", i) if s is None else s for i, s in enumerate(speakers)], f"{count} speakers{rest}"
