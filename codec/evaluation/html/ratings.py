"""The results of a listening test: read, screened and summed up."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import scipy.stats

from codec.utils.safe_io import read_json

MOST = 2**24  # bytes of a result
FORMAT = "listening test 1"
REFERENCE = "reference"  # the hidden one, among the systems of the results
ANCHOR = "anchor, 3.5 kHz"


def read_results(paths: Iterable[str | Path]) -> pandas.DataFrame:
    """Result files of one test -> columns ``listener``, ``clip``, ``system``, ``score`` (0 to 100), a row per rating.

    Raises ValueError, one sentence that names the file, for what is no result, a score out of bounds, a condition that
    comes twice, files of different tests, and a listener who comes twice.
    """
    tables, tests = [], {}
    for path in map(Path, paths):
        try:
            content = read_json(path, MOST)
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']!r}")
            rows = [
                _row(content["listener"], trial["clip"], c) for trial in content["trials"] for c in trial["conditions"]
            ]
            table = pandas.DataFrame(rows, columns=["listener", "clip", "system", "score"])
            test = str(content["test"])
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no result of a listening test: {type(error).__name__} {error}.") from error
        if table.empty or table.duplicated(["clip", "system"]).any():
            raise ValueError(f"{path} has no rating, or rates one condition twice.")
        if any(table["listener"][0] == other["listener"][0] for other in tables):
            raise ValueError(f"{path} is a second result of listener {table['listener'][0]}.")
        tests.setdefault(test, path)
        if len(tests) > 1:
            raise ValueError(f"{path} and {next(iter(tests.values()))} are of different tests.")
        tables.append(table)
    if not tables:
        raise ValueError("There is no result to read.")
    return pandas.concat(tables, ignore_index=True)


def screened(results: pandas.DataFrame) -> tuple[pandas.DataFrame, list[str]]:
    """The ratings of reliable listeners, and who was excluded: post-screening of ITU-R BS.1534-3, section 4.1.2.

    Excluded is who rates the hidden reference below 90 in more than 15 % of the trials.
    """
    hidden = results[results["system"] == REFERENCE]
    missed = (hidden["score"] < 90).groupby(hidden["listener"]).mean()
    excluded = sorted(missed.index[missed > 0.15])
    return results[~results["listener"].isin(excluded)].reset_index(drop=True), excluded


def summarise(results: pandas.DataFrame, against: str | None = None) -> pandas.DataFrame:
    """A row per system, best first: ``mean``, ``low``, ``high`` (95 % t-interval), ``n`` and ``over``: of what.

    Of listeners, each with the mean of their ratings, if there are at least two; else the one listener's clips.
    With ``against``, the same of the paired difference to that system: ``difference``, ``difference_low``,
    ``difference_high``.

    Raises ValueError if there is no system ``against``.
    """
    over = "listener" if results["listener"].nunique() > 1 else "clip"
    table = results.pivot_table(values="score", index=over, columns="system", aggfunc="mean")  # [units, systems]
    if against is not None and against not in table:
        raise ValueError(f"There is no system {against}; there are {', '.join(table)}.")
    rows = []
    for system in table:
        row = {"system": system, **_t_interval(table[system]), "over": f"{over}s"}
        if against is not None:
            difference = _t_interval(table[system] - table[against])
            row |= {"difference": difference["mean"]}
            row |= {f"difference_{side}": difference[side] for side in ("low", "high")}
        rows.append(row)
    return pandas.DataFrame(rows).sort_values("mean", ascending=False, ignore_index=True)


def _t_interval(values: pandas.Series) -> dict[str, Any]:
    values = values.dropna().to_numpy()
    n, mean = len(values), float(values.mean())
    if n < 2:
        return {"mean": mean, "low": math.nan, "high": math.nan, "n": n}
    half = float(scipy.stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def _row(listener: Any, clip: Any, condition: dict[str, Any]) -> list[Any]:
    score = condition["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 100:
        raise ValueError(f"the score {score!r} is not between 0 and 100")
    return [str(listener), str(clip), str(condition["system"]), float(score)]
