"""The contract of a metric, and checks that metrics share.

A metric is `(reference [T], estimate [T], sample_rate in Hz) -> float` on 1-D float arrays in [-1, 1]. It raises
`ValueError` for unequal lengths and `MetricError` for audio without a score (silence, NaN, too short), for which the
libraries return a plausible wrong number or crash. Worker processes import a metric by name: its module must not import
torch or pandas at the top (2 s).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr

from codec.utils.errors import UserError

SILENCE = 2.0**-15  # peak to peak: a signal that stays within one 16-bit step is silent


class MetricError(Exception):
    """The audio has no score in this metric; the message is a sentence for the report."""


class MissingError(UserError):
    """A metric or system is unknown, or lacks a package or weights; the message says how to get it."""


@dataclass(frozen=True)
class Metric:
    """Name, unit and direction of a score, and the function that computes it for a clip."""

    name: str
    function: Callable[..., float] | None  # None for scores that only reports contain
    unit: str  # empty for a bare number
    higher_is_better: bool
    # raises MissingError if packages or weights beyond requirements.txt are missing; `table.choose` calls it
    check: Callable[[], None] | None = None


def finite_pair(reference, estimate) -> tuple[np.ndarray, np.ndarray]:
    """Both signals as finite float64 arrays [T] of equal length."""
    reference, estimate = np.asarray(reference, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if reference.ndim != 1 or reference.shape != estimate.shape:
        shapes = f"{list(reference.shape)} and {list(estimate.shape)}"
        raise ValueError(f"Reference and estimate must be 1-D and of equal length; they are {shapes}.")
    for role, signal in (("reference", reference), ("estimate", estimate)):
        if not len(signal):
            raise MetricError(f"The {role} is empty.")
        if not np.isfinite(signal).all():
            raise MetricError(f"The {role} has samples that are not finite.")
    return reference, estimate


def audible_pair(
    name: str, reference, estimate, sample_rate: int, shortest: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """`finite_pair` of signals that are not silent and last `shortest` seconds; `name` is the metric's, for errors."""
    reference, estimate = finite_pair(reference, estimate)
    for role, signal in (("reference", reference), ("estimate", estimate)):
        if np.ptp(signal) < SILENCE:
            raise MetricError(f"The {role} is silent.")
    seconds = len(reference) / sample_rate
    if seconds < shortest:
        raise MetricError(f"{name} needs {shortest} s or more; this clip has {seconds:.2f} s.")
    return reference, estimate


def resampled_pair(
    name: str, reference, estimate, sample_rate: int, rate: int, shortest: float
) -> tuple[np.ndarray, np.ndarray]:
    """`audible_pair`, resampled to `rate` Hz by soxr (high quality)."""
    reference, estimate = audible_pair(name, reference, estimate, sample_rate, shortest)
    return soxr.resample(reference, sample_rate, rate), soxr.resample(estimate, sample_rate, rate)


def finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise MetricError(f"{name} returned {value}.")
    return float(value)
