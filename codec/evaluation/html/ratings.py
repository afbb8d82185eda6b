"""Results of a listening test: reading, post-screening of listeners, and means with intervals."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from codec.evaluation.metrics.intervals import Interval, by_speaker, crossed, mean_interval
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
    speaker: str | int | None = None  # results of older pages have none
    conditions: list[Condition]


class Result(Schema):
    """Schema of the result file of one listener."""

    format: Literal[FORMAT]
    test: str
    listener: str
    trials: list[Trial]


def read_ratings(paths: Iterable[str | Path]) -> "pandas.DataFrame":
    """Result files of one listening test -> a row per rating: ``listener``, ``clip``, ``speaker`` (None: unknown),
    ``system``, ``score`` (0 to 100).

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
        rows = [(t.clip, t.speaker, c.system, c.score) for t in result.trials for c in t.conditions]
        table = pandas.DataFrame(rows, columns=["clip", "speaker", "system", "score"])
        table.insert(0, "listener", result.listener)
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
    """A row per system, best first: ``mean`` over listeners of their means, ``low``, ``high``, ``n``, ``over``.

    The 95 % interval is over listeners and over clips, by speaker where known, or over the clips of a single listener.
    ``n`` counts listeners, or those clips. ``against`` adds the paired difference to that system: ``difference``,
    ``difference_low``, ``difference_high``.
    """
    import pandas

    tables = ratings.pivot(index=["system", "listener"], columns="clip", values="score")
    systems = {system: tables.loc[system] for system in tables.index.unique("system")}  # [listeners, clips]
    if against is not None and against not in systems:
        raise InputError(f"There is no system {against}; there are {', '.join(systems)}.")
    speakers = ratings.drop_duplicates("clip").set_index("clip")["speaker"]
    single = ratings["listener"].nunique() == 1

    def interval(table: pandas.DataFrame) -> Interval:
        groups, _ = by_speaker(speakers[table.columns])
        return mean_interval(table.iloc[0], groups) if single else crossed(table.dropna(how="all"), None, groups)

    over = "clips" if by_speaker(speakers)[0] is None else "speakers"
    over = over if single else f"listeners, {over}"
    rows = []
    for system, table in systems.items():
        mean, low, high, n, _ = interval(table)
        row = {"system": system, "mean": mean, "low": low, "high": high, "n": n, "over": over}
        if against is not None:
            mean, low, high, _, _ = interval(table - systems[against])
            row |= {"difference": mean, "difference_low": low, "difference_high": high}
        rows.append(row)
    return pandas.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)
