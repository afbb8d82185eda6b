"""Comparison of runs: text, ``compare.html``, and ``compare.csv`` and ``.json``, reproducible to the byte."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codec.evaluation.html.base import TIMING, Grid, SystemResult, family_of, read_timings
from codec.evaluation.metrics.intervals import by_speaker
from codec.evaluation.report import Report, metric_title, text_table, write_json
from codec.evaluation.runs.main_effects import CompareError, check_same_clips, main_effects
from codec.evaluation.runs.run_folder import Run, find_runs, natural_key, run_names
from codec.utils.atomic import write_atomic

MAIN_METRICS = ("pesq_wb", "stoi", "mel_distance")  # printed unless others are asked for
NO_REPORTS = ("compare.json", TIMING)  # other JSON files in the folder of an evaluation


@dataclass
class Comparison:
    """Compared runs: their grid, the results that a page shows, and remarks for the user."""

    runs: list[Run]
    grid: Grid
    results: list[SystemResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def scored(self) -> bool:
        return any(not result.baseline for result in self.results)


def compare(
    paths: Iterable[str | Path], folder: Path | None = None, metrics: Sequence[str] | None = None
) -> Comparison:
    """Compare the runs at or below ``paths`` by the reports of eval.py in ``folder``, or else by those of training."""
    runs = find_runs(paths)
    names = run_names(runs)
    finished = {name: run for run, name in zip(runs, names, strict=True) if run.status.state == "finished"}
    of_runs, of_baselines = {run.folder.resolve(): [run.report] for run in finished.values()}, {}
    if folder:
        of_runs, of_baselines = read_scores(folder)
    reports = {name: of_runs.pop(run.folder.resolve(), []) for run, name in zip(runs, names, strict=True)}
    first = {name: reports[name][0] for name in finished if reports[name]}
    result = Comparison(runs, main_effects(runs, names, first, metrics))
    for run, name in zip(runs, names, strict=True):
        if name not in finished:
            if reports[name]:
                result.notes.append(f"{name} is {run.status.state}: its scores in {folder} are left out")
            continue
        if not reports[name]:
            result.notes.append(f"{name} finished, but {folder} has no report of it")
        for number, report in enumerate(reports[name]):
            label = f"{name} n_q={report.facts['n_q']}" if number else name
            place = folder or run.folder
            timing = read_timings(place).get(report.facts.get("system", label), {})
            curves = None if number else run.curves()  # drawn once for the family
            result.results.append(SystemResult(label, report, place, name, False, run.command, timing, curves))
    for name, report in of_baselines.items():
        result.results.append(SystemResult(name, report, folder, family_of(name), baseline=True))
    if of_runs:
        result.notes.append(f"{folder} has reports of {len(of_runs)} more runs, which were not asked for")
    check_same_clips({one.name: one.report for one in result.results})
    return result


def read_scores(folder: Path) -> tuple[dict[Path, list[Report]], dict[str, Report]]:
    """Reports of eval.py in a folder: of runs, by resolved run folder, most codebooks first; of baselines, by name."""
    of_runs: dict[Path, list[Report]] = {}
    of_baselines: dict[str, Report] = {}
    timings = read_timings(folder)
    for file in sorted(folder.glob("*.json"), key=natural_key):
        if file.name in NO_REPORTS:
            continue
        report = Report.read(file)
        if timings and report.facts.get("system") not in timings:  # of an earlier evaluation
            continue
        if run := report.facts.get("run"):
            of_runs.setdefault((folder / run).resolve(), []).append(report)
        else:
            of_baselines[report.facts.get("system", file.stem)] = report
    if not of_runs and not of_baselines:
        raise CompareError(f"there are no reports in {folder}: give the folder that eval.py wrote")
    for run, reports in of_runs.items():
        counts = [report.facts.get("n_q") for report in reports]
        if len(set(counts)) < len(counts):
            raise CompareError(f"{folder} has two reports of {run} with the same n_q: give a folder with one")
        reports.sort(key=lambda report: -(report.facts.get("n_q") or 0))
    return of_runs, of_baselines


def write_files(result: Comparison, folder: Path, title: str) -> list[Path]:
    """Write CSV, JSON and, if there are scores, the HTML page into a folder; returns their paths."""
    rows = result.grid.runs.copy()
    rows.insert(3, "seed", [run.seed for run in result.runs])
    rows.insert(4, "folder", [os.path.relpath(run.folder.resolve(), folder.resolve()) for run in result.runs])
    written = [folder / "compare.csv", folder / "compare.json"]
    write_atomic(written[0], rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    effects = [{**vars(effect), "difference": effect.difference._asdict()} for effect in result.grid.effects]
    content = {"runs": rows.to_dict(orient="records"), "factors": result.grid.factors, "effects": effects}
    write_json(written[1], content)
    if result.scored:
        from codec.evaluation.html.report import write_page  # matplotlib and jinja2

        written.append(write_page(folder / "compare.html", result.results, title, result.grid))
    return written


def format_comparison(result: Comparison, metrics: Sequence[str] | None = None) -> str:
    """The runs, the reasons of those that did not finish, and the main effects as plain text."""
    table = result.grid.runs
    scored = dict.fromkeys(m for one in result.results for m in one.report.metrics if m in table.columns)
    columns = [metric for metric in metrics or MAIN_METRICS if metric in table.columns] or list(scored)
    runs = table.to_dict(orient="records")
    rows = [[run["state"], run["name"], *(_number(run[metric]) for metric in columns)] for run in runs]
    blocks = ["\n".join(text_table([["state", "name", *map(metric_title, columns)], *rows]))]
    blocks += [
        f"{run['name']} ({run['state']}): {run['reason']}\n  {run['command']}"
        for run in runs
        if run["state"] != "finished"
    ]
    rows = [["factor", "level", "against", "metric", "mean", "difference", "95 % interval", "pairs"]]
    for effect in result.grid.effects:
        if effect.metric in columns:
            mean, low, high, n, _ = effect.difference
            interval = "" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
            level = [effect.factor, effect.level, effect.against, metric_title(effect.metric)]
            rows.append([*level, _number(effect.mean), _number(mean, "+"), interval, str(n)])
    if len(rows) > 1:
        title = "main effects: differences of runs that agree in all other factors and in the seed; intervals are over "
        title += f"seeds and {by_speaker(result.results[0].report.clips['speaker'])[1]}"
        blocks.append("\n".join([title, *text_table(rows)]))
    failed = {one.name: int(one.report.clips[one.report.metrics].isna().sum().sum()) for one in result.results}
    if counts := [f"{name}: {count}" for name, count in failed.items() if count]:
        blocks.append(f"scores of clips that failed, listed in the reports: {', '.join(counts)}")
    return "\n\n".join([*blocks, *result.notes])


def common_folder(runs: Sequence[Run]) -> Path:
    """The deepest folder that holds all the runs."""
    return Path(os.path.commonpath([run.folder.resolve() for run in runs]))


def _number(value: float, sign: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{sign}.3f}"
