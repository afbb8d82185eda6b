"""What a page shows: results of systems, and of a sweep its runs and main effects."""

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
    """A page cannot be made of these results; the message is one sentence for the user."""


@dataclass
class SystemResult:
    """One system on a page.

    name: unique and short: ``disc=msd seed=0``, ``opus 6 kbit/s``.
    folder: the folder of the report, from which ``report.audio`` is relative.
    family: shared by systems that differ in bitrate alone, which a line joins; empty: the name.
    baseline: not trained here: drawn apart, and not compared by default.
    command: repeats the training.
    timing: measured on this machine, hence not in the report: ``rtf_encode``, ``rtf_decode`` (seconds of computing per
        second of audio), ``device``, ``threads``.
    curves: a column ``step``, and one per logged value (``train/mel``, ``val/stoi``), NaN where it was not logged.
        None: no training, or that of another system of the family.
    """

    name: str
    report: Report
    folder: Path
    family: str = ""
    baseline: bool = False
    command: str = ""
    timing: dict[str, Any] = field(default_factory=dict)
    curves: "pandas.DataFrame | None" = None

    def __post_init__(self) -> None:
        self.family = self.family or self.name


@dataclass
class Effect:
    """The main effect of one level of a factor on a metric, against the factor's first level.

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

    runs: one row per run, failed ones included: ``name``, ``state`` (finished, unfinished, failed, diverged),
        ``reason``, one column per factor, ``command``, and one per metric (NaN where there is no score).
    factors: name -> its levels, the reference level first.
    """

    runs: "pandas.DataFrame"
    factors: dict[str, list[str]]
    effects: list[Effect]


class Timing(Schema):
    """Schema of a system's timing."""

    model_config = ConfigDict(extra="allow")
    rtf_encode: Annotated[float, Field(ge=0, lt=1e300)] | None = None
    rtf_decode: Annotated[float, Field(ge=0, lt=1e300)] | None = None


class Timings(RootModel[dict[str, Timing]]):
    """Schema of timing.json: timings by system."""


def read_timings(folder: Path) -> dict[str, dict[str, Any]]:
    """The timings beside the reports in a folder, by system; {} if there are none.

    Raises ReportError if the file is damaged.
    """
    file = folder / TIMING
    if not file.is_file():
        return {}
    try:
        timings = read_json_as(file, Timings).root
    except (OSError, UntrustedFileError) as error:
        raise ReportError(f"{error}: remove this file, or evaluate again") from error
    return {name: timing.model_dump(exclude_unset=True) for name, timing in timings.items()}


def family_of(name: str) -> str:
    """The name of a baseline without the bitrate or number of codebooks at its end."""
    return re.sub(r"_(nq)?\d+$", "", name)


def check_listening_test(names: Sequence[str]) -> None:
    """Raises PageError unless a trial of a listening test has room for these systems, a reference and an anchor."""
    count, most = len(set(names) - {IDENTITY, LOW_PASS}), MOST_CONDITIONS - 2
    if not 0 < count <= most:
        raise PageError(f"listening: a trial has room for 1 to {most} systems, not for {count}")
