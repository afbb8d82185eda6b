"""Main effects of the settings of a sweep on its metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas

from codec.evaluation.html.base import Effect, Grid
from codec.evaluation.metrics.intervals import by_speaker, crossed
from codec.evaluation.report import Report
from codec.evaluation.runs.factors import SEED, differences, levels
from codec.evaluation.runs.run_folder import Run
from codec.utils.errors import InputError


class CompareError(InputError):
    """Runs that cannot be compared; the message is one sentence."""


def main_effects(
    runs: Sequence[Run], names: Sequence[str], reports: Mapping[str, Report], metrics: Sequence[str] | None = None
) -> Grid:
    """Scores of the runs of a sweep, and the main effect of every level of every factor.

    Factors are the settings that differ between the runs (:func:`~codec.evaluation.runs.factors.differences`) except
    the seed: seeds are replicates. The reference level is the first of :func:`~codec.evaluation.runs.factors.levels`;
    levels without scores come last.

    A run's score is the mean of a metric over its clips. An effect is the mean over pairs of scored runs that differ in
    this factor alone and agree in all others and in the seed; the difference of a pair is over the clips that both have
    scores of. A failed run removes its own pairs only. Runs that agree in everything count as one, by their mean.

    The interval is over seeds and speakers, as both the runs and the clips are samples: pairs of one seed share its data
    order, and all pairs the clips (:func:`~codec.evaluation.metrics.intervals.crossed`). The pairs of a single seed
    count as independent, and it then says nothing about other seeds.

    ``names`` (unique) are in the order of ``runs``; ``reports`` are those of scored runs, by name; ``metrics`` None:
    all.
    """
    check_same_clips(reports)
    known = list(dict.fromkeys(metric for report in reports.values() for metric in report.metrics))
    for metric in metrics or []:
        if known and metric not in known:
            raise CompareError(f"no report has the metric {metric}; they have {', '.join(known)}")
    metrics = list(dict.fromkeys(metrics or known))
    columns = differences([run.settings for run in runs])
    seeds = columns.pop(SEED, [run.seed for run in runs])
    factors = {}
    for key, column in columns.items():
        scored = {value for value, name in zip(column, names, strict=True) if name in reports}
        ordered = levels(column, [key in run.settings.overridden for run in runs])
        factors[key] = sorted(ordered, key=lambda level: level not in scored)

    table = pandas.DataFrame({"name": list(names)})
    table["state"], table["reason"] = [run.status.state for run in runs], [run.status.reason for run in runs]
    for key, column in columns.items():
        table[key] = ["" if value is None else value for value in column]
    table["command"] = [run.command for run in runs]
    for metric in metrics:
        having = {name for name in reports if metric in reports[name].metrics}
        table[metric] = [float(reports[n].clips[metric].mean()) if n in having else math.nan for n in names]
    cells = pandas.DataFrame({**columns, SEED: seeds}, index=list(names), dtype=object)
    cells = cells[cells.index.isin(list(reports))].dropna()
    return Grid(table, factors, list(_effects(cells, reports, metrics, factors)))


def check_same_clips(reports: Mapping[str, Report]) -> None:
    """Raises CompareError unless all reports are of the same clips at the same lengths and sample rate."""
    rates = {report.facts.get("sample_rate"): name for name, report in reports.items()}
    if len(rates) > 1:
        (one, a), (other, b), *_ = rates.items()
        raise CompareError(
            f"{a} was scored at {one} Hz and {b} at {other}: score all at one rate with eval.py, and give --scores"
        )
    clips = {name: set(zip(r.clips["clip"], r.clips["seconds"], strict=True)) for name, r in reports.items()}
    first = next(iter(clips), None)
    for name in clips:
        if clips[name] != clips[first]:
            raise CompareError(
                f"{first} and {name} were scored on different clips ({len(clips[first])} and {len(clips[name])}, "
                f"{len(clips[first] & clips[name])} in common): score all on the same ones with eval.py, and give "
                "--scores"
            )


def _effects(
    cells: pandas.DataFrame, reports: Mapping[str, Report], metrics: Sequence[str], factors: dict[str, list[str]]
) -> Iterator[Effect]:
    """Effects on every metric; ``cells``: factors and seed of each scored run, by name."""
    clips = {} if not reports else next(iter(reports.values())).clips.set_index("clip")["speaker"]
    for metric in metrics:
        columns = {n: r.clips.set_index("clip")[metric] for n, r in reports.items() if metric in r.metrics}
        scores = pandas.DataFrame(columns).T  # [runs, clips]
        settings = cells.loc[cells.index.isin(scores.index)]
        for factor, (first, *others) in factors.items():
            rest = [key for key in cells.columns if key != factor]
            scores_of = {}  # level -> [other settings, clips]: runs that agree in all settings count as one
            for level in (first, *others):
                same = settings.loc[settings[factor] == level, rest]
                scores_of[level] = scores.loc[same.index].groupby([same[key] for key in rest]).mean()
            for level in others:
                pairs = (scores_of[level] - scores_of[first]).dropna(how="all")  # of the clips that both have
                seeds = pairs.index.get_level_values(SEED)
                speakers, _ = by_speaker(clips[pairs.columns])
                difference = crossed(pairs, seeds if seeds.nunique() > 1 else None, speakers)
                yield Effect(factor, level, first, metric, float(scores_of[level].mean(axis=1).mean()), difference)
