"""Results of a listening test: reading, post-screening of listeners, and means with t-intervals."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from codec.evaluation.metrics.intervals import t_interval
from codec.utils.errors import InputError
from codec.utils.safe_io import Schema, read_json_as

if TYPE_CHECKING:
    import pandas

LARGEST = 2**24  # bytes of a result
FORMAT = "listening test 1"
REFERENCE = "reference"  # the hidden one, among the systems of the results
ANCHOR = "anchor, 3.5 kHz"


class Condition(Schema):
    system: str
    score: Annotated[float, Field(ge=0, le=100)]


class Trial(Schema):
    clip: str
    conditions: list[Condition]


class Result(Schema):
    """Schema of the result file of one listener."""

    format: Literal[FORMAT]
    test: str
    listener: str
    trials: list[Trial]


def read_ratings(paths: Iterable[str | Path]) -> "pandas.DataFrame":
    """Result files of one listening test -> a row per rating: ``listener``, ``clip``, ``system``, ``score`` (0 to 100).

    Raises InputError for a file that is not valid, a repeated condition or listener, and files of different tests.
    """
    import pandas

    tables: dict[str, pandas.DataFrame] = {}
    tests: dict[str, Path] = {}
    for path in map(Path, paths):
        try:
            result = read_json_as(path, Result, LARGEST)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        rows = [(result.listener, trial.clip, c.system, c.score) for trial in result.trials for c in trial.conditions]
        table = pandas.DataFrame(rows, columns=["listener", "clip", "system", "score"])
        if table.empty or table.duplicated(["clip", "system"]).any():
            raise InputError(f"{path} has no rating, or rates one condition twice.")
        if result.listener in tables:
            raise InputError(f"{path} is a second result of listener {result.listener}.")
        tables[result.listener] = table
        tests.setdefault(result.test, path)
        if len(tests) > 1:
            raise InputError(f"{path} and {next(iter(tests.values()))} are of different tests.")
    if not tables:
        raise InputError("There is no result to read.")
    return pandas.concat(tables.values(), ignore_index=True)


def screen_listeners(ratings: "pandas.DataFrame") -> tuple["pandas.DataFrame", list[str]]:
    """Post-screening (ITU-R BS.1534-3, section 4.1.2) -> ratings of the listeners who pass, names of the excluded.

    Excluded: whoever rates the hidden reference below 90 in more than 15 % of the trials.
    """
    hidden = ratings[ratings["system"] == REFERENCE]
    missed = (hidden["score"] < 90).groupby(hidden["listener"]).mean()
    excluded = sorted(missed.index[missed > 0.15])
    return ratings[~ratings["listener"].isin(excluded)].reset_index(drop=True), excluded


def summarise(ratings: "pandas.DataFrame", against: str | None = None) -> "pandas.DataFrame":
    """A row per system, best first: ``mean``, ``low``, ``high`` (95 % t-interval), ``n`` and ``over``, what n counts.

    The interval is over listeners, each with the mean of their ratings, or over the clips of a single listener.
    ``against`` adds the paired difference to that system: ``difference``, ``difference_low``, ``difference_high``.
    """
    import pandas

    over = "listener" if ratings["listener"].nunique() > 1 else "clip"
    table = ratings.pivot_table(values="score", index=over, columns="system", aggfunc="mean")  # [units, systems]
    if against is not None and against not in table:
        raise InputError(f"There is no system {against}; there are {', '.join(table)}.")
    rows = []
    for system in table:
        row = {"system": system, **t_interval(table[system].dropna())._asdict(), "over": f"{over}s"}
        if against is not None:
            mean, low, high, _ = t_interval((table[system] - table[against]).dropna())
            row |= {"difference": mean, "difference_low": low, "difference_high": high}
        rows.append(row)
    return pandas.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)
