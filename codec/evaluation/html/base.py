"""What a page is made of: systems with their reports, and, for a sweep, its runs and main effects."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.report import Report, ReportError
from codec.utils.errors import InputError
from codec.utils.safe_io import UntrustedFileError, read_json

TIMING = "timing.json"  # beside reports: name of a system -> `Entry.timing`
FACTORS = ("rtf_encode", "rtf_decode")  # of a timing: its numbers


class PageError(InputError):
    """No page can be made of this; the message is one sentence for the user."""


def timings(folder: Path) -> dict[str, dict[str, Any]]:
    """What was measured beside the reports in a folder, by system; {} where nothing was.

    Raises ReportError if the file is damaged, or holds something else.
    """
    file = folder / TIMING
    if not file.is_file():
        return {}
    try:
        content = read_json(file)
    except (OSError, UntrustedFileError) as error:
        raise ReportError(f"{file} cannot be read: {error}") from error
    if not all(isinstance(timing, dict) for timing in content.values()):
        raise ReportError(f"{file} holds no timings by system: remove it, or evaluate again")
    for name, timing in content.items():
        if not all(_is_measured(timing[factor]) for factor in FACTORS if factor in timing):
            raise ReportError(f"{file} has a timing of {name!r} that is no number: remove it, or evaluate again")
    return content


def _is_measured(value: Any) -> bool:
    """Whether it is a number of seconds; None is one that could not be written."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and 0 <= value < 1e300)  # what a float can hold


def family_of(name: str) -> str:
    """What baselines that differ in bitrate alone share: the name without the number at its end."""
    return re.sub(r"_(nq)?\d+$", "", name)


@dataclass
class Entry:
    """One system on the page.

    name: unique and short: ``disc=msd seed=0``, ``opus 6 kbit/s``.
    folder: where ``report.audio`` begins.
    family: systems that differ in bitrate alone share one; a line joins them. Empty: the name.
    baseline: it was not trained here; it is drawn apart, and is no side of a paired difference by default.
    command: what made it, for the user to repeat.
    timing: measured on this machine, so not in the report: ``rtf_encode``, ``rtf_decode`` (seconds of computing per
        second of audio), ``device``, ``threads``.
    curves: a column ``step``, and one per logged value (``train/mel``, ``val/stoi``), NaN between; None: no training,
        or that of another entry of the family.
    """

    name: str
    report: Report
    folder: Path
    family: str = ""
    baseline: bool = False
    command: str = ""
    timing: dict[str, Any] = field(default_factory=dict)
    curves: pandas.DataFrame | None = None


@dataclass
class Effect:
    """What one level of a factor does to a metric, against the factor's first level, the rest of the grid being equal.

    difference: mean over the ``difference.n`` pairs of runs that differ in this factor alone, with a 95 % interval.
    """

    factor: str
    level: str
    against: str
    metric: str
    mean: float  # of the runs with this level
    difference: Interval


@dataclass
class Grid:
    """The runs of a sweep.

    runs: one row per run, failed ones too: ``name``, ``state`` (finished, unfinished, failed, diverged), ``reason``,
        one column per factor, ``command``, and one per metric (NaN where there is no score).
    factors: name -> its levels, the first of which is the one that others are compared with.
    """

    runs: pandas.DataFrame
    factors: dict[str, list[str]]
    effects: list[Effect]
