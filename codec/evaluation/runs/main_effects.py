"""What each part does: main effects over a grid of runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import pandas
from scipy import stats

from codec.utils.errors import InputError
from codec.evaluation.runs.factors import SEED, differences, levels
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.html.base import Effect, Grid
from codec.evaluation.report import Report
from codec.evaluation.runs.run_folder import Run


class CompareError(InputError):
    """Runs cannot be compared; the message is one sentence."""


def grid(
    runs: Sequence[Run],
    names: Sequence[str],
    reports: Mapping[str, Report] | None = None,
    metrics: Sequence[str] | None = None,
) -> Grid:
    """The runs with their scores, and what every level of every factor changes.

    A factor is a setting that differs between the runs (:func:`codec.evaluation.runs.factors.differences`), ``seed`` excepted: seeds
    are the replicates. :func:`codec.evaluation.runs.factors.levels` says which level the others are compared with; one that no run of
    has scores comes last.

    The number of a run is the mean of a metric over its clips. An effect is the mean over pairs of finished runs that
    differ in this factor alone and agree in all others and in the seed, so a run that failed takes its own pairs away
    and no more; the difference of a pair is over the clips that both have scores of. Runs that agree in everything
    count as one, by their mean.

    The interval is Student's t over the pairs. It assumes that their differences are independent and nearly normal, and
    of the seeds nothing but that pairs share them. A bootstrap would not do with two or three pairs, as grids have: it
    can only draw the same two or three numbers again, never goes beyond the least and the greatest of them, and so
    covers the truth far less often than 95 % of the time (Efron and Tibshirani 1993, chapters 12 and 13). Pairs of one
    seed that differ in other factors share their data order, and count as independent all the same.

    Args:
        names: of the runs, in their order; unique.
        reports: name -> report, where they are not those that training ended with.
        metrics: take these only; None: all that any report has.

    Raises:
        CompareError: if two reports are of different clips, or no report has one of the metrics.
        ReportError: if a run that finished has lost its report.
    """
    finished = [n for n, run in enumerate(runs) if run.state == "finished"]
    if reports is None:
        reports = {names[n]: runs[n].report for n in finished}
    else:
        reports = {names[n]: reports[names[n]] for n in finished if names[n] in reports}
    same_clips(reports)
    metrics = _metrics(reports, metrics)
    scores = {name: {m: float(report.clips[m].mean()) for m in report.metrics} for name, report in reports.items()}

    settings = [run.settings for run in runs]
    columns = differences(settings)
    seeds = columns.pop(SEED, [run.seed for run in runs])
    factors = {}
    for key, column in columns.items():
        scored = {value for value, name in zip(column, names, strict=True) if name in reports}
        ordered = levels(column, [key in run.told for run in settings])
        factors[key] = sorted(ordered, key=lambda level: level not in scored)

    table = pandas.DataFrame({"name": list(names)})
    table["state"], table["reason"] = [run.state for run in runs], [run.reason for run in runs]
    for key, column in columns.items():
        table[key] = ["" if value is None else value for value in column]
    table["command"] = [run.command for run in runs]
    for metric in metrics:
        table[metric] = [scores.get(name, {}).get(metric, math.nan) for name in names]

    cells = pandas.DataFrame({**columns, SEED: seeds}, dtype=object)
    cells = cells.loc[[n for n in finished if names[n] in reports]].dropna()
    of_run = {n: reports[names[n]] for n in cells.index}
    effects = list(_effects(cells, of_run, metrics, factors))
    return Grid(table, factors, effects)


def student(values: Sequence[float]) -> Interval:
    """Mean with its 95 % interval by Student's t (1908); NaN for the interval of a single value, for all of none."""
    n = len(values)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = fmean(values)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def same_clips(reports: Mapping[str, Report]) -> None:
    """Raises CompareError, naming two reports, if not all are of the same clips at the same lengths and rate."""
    first: tuple[str, set] | None = None
    rates = {report.facts.get("sample_rate"): name for name, report in reports.items()}
    if len(rates) > 1:
        (one, a), (other, b), *_ = rates.items()
        raise CompareError(
            f"{a} was scored at {one} Hz and {b} at {other}: score all at one rate with eval.py, and give --scores"
        )
    for name, report in reports.items():
        clips = set(zip(report.clips["clip"], report.clips["seconds"], strict=True))
        if first is None:
            first = name, clips
        elif clips != first[1]:
            raise CompareError(
                f"{first[0]} and {name} were scored on different clips ({len(first[1])} and {len(clips)}, "
                f"{len(first[1] & clips)} in common): score all on the same ones with eval.py, and give --scores"
            )


def _metrics(reports: Mapping[str, Report], wanted: Sequence[str] | None) -> list[str]:
    known = list(dict.fromkeys(metric for report in reports.values() for metric in report.metrics))
    for metric in wanted or []:
        if known and metric not in known:
            raise CompareError(f"no report has the metric {metric}; they have {', '.join(known)}")
    return list(dict.fromkeys(wanted)) if wanted else known


def _effects(
    cells: pandas.DataFrame, reports: Mapping[int, Report], metrics: Sequence[str], factors: dict[str, list[str]]
) -> Iterator[Effect]:
    """``cells``: a row per scored run, its factors and seed as text; ``reports``: by the same index."""
    for metric in metrics:
        scores = {
            n: report.clips.set_index("clip")[metric] for n, report in reports.items() if metric in report.metrics
        }
        for factor, (first, *others) in factors.items():
            rest = [key for key in cells.columns if key != factor]
            for level in others:
                ours, theirs = (_runs_of(cells, rest, cells[factor] == one, scores) for one in (level, first))
                pairs = [(ours[key] - theirs[key]).mean() for key in ours if key in theirs]  # over the clips of both
                pairs = [difference for difference in pairs if not math.isnan(difference)]
                means = [series.mean() for series in ours.values()]
                mean = fmean(means) if means else math.nan
                yield Effect(factor, level, first, metric, mean, student(pairs))


def _runs_of(
    cells: pandas.DataFrame, rest: list[str], rows: pandas.Series, scores: Mapping[int, pandas.Series]
) -> dict[tuple, pandas.Series]:
    """The other settings of the runs in ``rows`` -> scores by clip, the mean of runs that agree in all."""
    found: dict[tuple, list[pandas.Series]] = {}
    for n in cells.index[rows]:
        if n in scores:
            found.setdefault(tuple(cells.loc[n, rest]), []).append(scores[n])
    return {key: pandas.concat(series, axis=1).mean(axis=1) for key, series in found.items()}
