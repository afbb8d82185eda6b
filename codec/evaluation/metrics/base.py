"""What a metric is, and the checks that metrics share.

A metric is a function `(reference [T], estimate [T], sample_rate in Hz) -> float` on two 1-D float arrays in [-1, 1].
It raises `ValueError` where the caller is wrong (unequal lengths) and `MetricError` where the audio has no score
(silence, NaN, too short), because the libraries behind it answer those cases with a plausible wrong number, or with a
crash. It is a function at module level of a module that imports neither torch nor pandas at the top: a worker process
imports it by name, and would pay 2 s for them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import soxr

from codec.utils.errors import UserError

SILENCE = 2.0**-15  # peak to peak: a signal that stays within one 16-bit step is silent


class MetricError(Exception):
    """This audio has no score in this metric; the message is a sentence for the report."""


class MissingError(UserError):
    """There is no such metric or system here, or what it needs is missing; the message says what, and how to get it."""


class Title(NamedTuple):
    """What a table has to say about a column of scores; ``unit`` is empty for a bare number."""

    name: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True)
class Metric:
    """A metric function with what a table has to say about it.

    unit: empty for a bare number.
    check: for metrics that need more than requirements.txt: raises `MissingError` where that is missing. `table.choose`
        calls it before any clip is scored.
    """

    name: str
    function: Callable[[np.ndarray, np.ndarray, int], float]
    unit: str
    higher_is_better: bool
    check: Callable[[], None] | None = None


def pair(reference, estimate) -> tuple[np.ndarray, np.ndarray]:
    """Both signals as finite float64 arrays [T] of one length."""
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


def refuse_silence(reference: np.ndarray, estimate: np.ndarray) -> None:
    for role, signal in (("reference", reference), ("estimate", estimate)):
        if np.ptp(signal) < SILENCE:
            raise MetricError(f"The {role} is silent.")


def refuse_short(name: str, signal: np.ndarray, sample_rate: int, shortest: float) -> None:
    seconds = len(signal) / sample_rate
    if seconds < shortest:
        raise MetricError(f"{name} needs {shortest} s or more; this clip has {seconds:.2f} s.")


def prepared(
    name: str, reference, estimate, sample_rate: int, rate: int, shortest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Both signals [T] at `sample_rate` Hz -> at `rate` Hz, by soxr's high quality.

    Raises `MetricError` where one is silent or not finite, or they last less than `shortest` seconds, and ValueError as
    `pair` does. `name` is that of the metric, for the message.
    """
    reference, estimate = pair(reference, estimate)
    refuse_silence(reference, estimate)
    refuse_short(name, reference, sample_rate, shortest)
    return soxr.resample(reference, sample_rate, rate), soxr.resample(estimate, sample_rate, rate)


def finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise MetricError(f"{name} returned {value}.")
    return float(value)
