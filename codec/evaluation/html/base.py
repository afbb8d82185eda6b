"""Data that an HTML page shows: results of systems and, for a sweep, its runs and main effects."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, RootModel

from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.report import Report, ReportError
from codec.utils.errors import InputError
from codec.utils.safe_io import Schema, UntrustedFileError, read_json_as

if TYPE_CHECKING:
    import pandas

TIMING = "timing.json"  # beside reports: name of a system -> `SystemResult.timing`
MOST_CONDITIONS = 12  # of a trial of a listening test (ITU-R BS.1534-3)
IDENTITY, LOW_PASS = "identity", "low_pass"  # baselines that are the hidden reference and the anchor of such a trial


class PageError(InputError):
    """Results that a page cannot show; the message is one sentence for the user."""


@dataclass
class SystemResult:
    """One evaluated system as a page shows it, under a unique name such as ``disc=msd seed=0``.

    timing: ``rtf_encode``, ``rtf_decode`` (seconds of computing per second of audio), ``device``, ``threads``; not
        reproducible, hence not in the report.
    curves: column ``step`` and one per logged value (``train/mel``), NaN where not logged; None: no training, or the
        curves are those of another system of the family.
    """

    name: str
    report: Report
    folder: Path  # of the report; the paths in report.audio are relative to it
    family: str = ""  # shared by systems that differ in bitrate alone, plotted as one line; empty: the name
    baseline: bool = False  # not trained here: drawn apart, and not compared by default
    command: str = ""  # repeats the training
    timing: dict[str, Any] = field(default_factory=dict)
    curves: "pandas.DataFrame | None" = None

    def __post_init__(self) -> None:
        self.family = self.family or self.name


@dataclass
class Effect:
    """Main effect of a factor's level on a metric: its difference from the factor's reference level."""

    factor: str
    level: str
    against: str
    metric: str
    mean: float  # of the runs with this level
    difference: Interval  # mean over the n pairs of runs that differ in this factor alone, with a 95 % interval


@dataclass
class Grid:
    """The runs of a sweep and their main effects.

    runs: a row per run, failed ones included: ``name``, ``state`` (finished, unfinished, failed, diverged), ``reason``,
    a column per factor, ``command``, a column per metric (NaN: no score).
    """

    runs: "pandas.DataFrame"
    factors: dict[str, list[str]]  # name -> levels, the reference level first
    effects: list[Effect]


class Timing(Schema):
    """Schema of one system's timing: real-time factors, and further facts that are not checked."""

    model_config = ConfigDict(extra="allow")
    rtf_encode: Annotated[float, Field(ge=0, lt=1e300)] | None = None
    rtf_decode: Annotated[float, Field(ge=0, lt=1e300)] | None = None


class Timings(RootModel[dict[str, Timing]]):
    """Schema of timing.json: timings by system."""


def read_timings(folder: Path) -> dict[str, dict[str, Any]]:
    """Timings beside the reports in a folder, by system; {} if there are none. Raises ReportError if damaged."""
    file = folder / TIMING
    if not file.is_file():
        return {}
    try:
        timings = read_json_as(file, Timings).root
    except (OSError, UntrustedFileError) as error:
        raise ReportError(f"{error}: remove this file, or evaluate again") from error
    return {name: timing.model_dump(exclude_unset=True) for name, timing in timings.items()}


def family_of(name: str) -> str:
    """Name of a baseline without the bitrate or number of codebooks at its end: ``opus_6`` -> ``opus``."""
    return re.sub(r"_(nq)?\d+$", "", name)


def check_listening_test(names: Sequence[str]) -> None:
    """Raises PageError unless a trial of a listening test has room for these systems, the reference and the anchor."""
    count, most = len(set(names) - {IDENTITY, LOW_PASS}), MOST_CONDITIONS - 2
    if not 0 < count <= most:
        raise PageError(f"listening: a trial has room for 1 to {most} systems, not for {count}")
