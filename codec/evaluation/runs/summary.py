"""What a comparison leaves: text for the terminal, ``compare.csv``, ``compare.json`` and ``compare.html``.

The first two files are reproducible: the same runs compared again give the same bytes.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from codec.evaluation.runs.main_effects import CompareError, grid, same_clips
from codec.evaluation.html.base import TIMING, Entry, Grid, family_of, timings
from codec.evaluation.report import Report, aligned, metric_title, plain, write_atomic
from codec.evaluation.runs.run_folder import Run, discover, names, natural

MAIN = ("pesq_wb", "stoi", "mel_distance")  # what the terminal shows unless told otherwise
OTHERS = ("compare.json", TIMING)  # in the folder of an evaluation, and no reports


@dataclass
class Comparison:
    """Runs with their names, in the same order; the grid of them; what a page shows; and what to tell."""

    runs: list[Run]
    names: list[str]
    grid: Grid
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def scored(self) -> bool:
        """Whether any run has scores."""
        return any(not entry.baseline for entry in self.entries)


@dataclass
class Scores:
    """The reports of an evaluation: of runs, by the resolved folder of the run, the most codebooks first; of others, by
    name."""

    folder: Path
    runs: dict[Path, list[Report]]
    baselines: dict[str, Report]


def compare(
    paths: Iterable[str | Path], scores: Path | None = None, metrics: Sequence[str] | None = None
) -> Comparison:
    """Find the runs and compare them, by the reports in ``scores`` or else by those that training ended with.

    Raises:
        RunError, CompareError, ReportError: in one sentence, if there are no runs, they cannot be compared, or a file
            cannot be read.
    """
    runs = discover(paths)
    named = names(runs)
    if scores is None:
        result = Comparison(runs, named, grid(runs, named, metrics=metrics))
        for run, name in zip(runs, named, strict=True):
            if run.state == "finished":
                result.entries.append(_entry(run, name, run.report, run.folder))
        return result
    found = read_scores(scores)
    own = {name: found.runs.pop(run.folder.resolve(), []) for run, name in zip(runs, named, strict=True)}
    whole = {name: reports[0] for name, reports in own.items() if reports}
    result = Comparison(runs, named, grid(runs, named, whole, metrics))
    for run, name in zip(runs, named, strict=True):
        if run.state == "finished":
            for number, report in enumerate(own[name]):
                label = f"{name} n_q={report.facts['n_q']}" if number else name
                result.entries.append(_entry(run, label, report, scores, family=name))
                if number:
                    result.entries[-1].curves = None  # drawn once for the family
            if not own[name]:
                result.notes.append(f"{name} finished, but {scores} has no report of it")
        elif own[name]:
            result.notes.append(f"{name} is {run.state}: its scores in {scores} are left out")
    for name, report in found.baselines.items():
        result.entries.append(Entry(name, report, scores, family_of(name), baseline=True))
    if found.runs:
        result.notes.append(f"{scores} has reports of {len(found.runs)} more runs, which were not asked for")
    same_clips({entry.name: entry.report for entry in result.entries})
    return result


def read_scores(folder: Path) -> Scores:
    """The reports in a folder that eval.py wrote: those whose fact ``run`` names a run folder, and the baselines.

    Raises:
        CompareError: if there are no reports, or two of one run do not differ in their number of codebooks.
        ReportError: if a report cannot be read.
    """
    scores, latest = Scores(folder, {}, {}), timings(folder)
    for file in sorted(folder.glob("*.json"), key=natural):
        if file.name in OTHERS:
            continue
        report = Report.read(file)
        if latest and report.facts.get("system") not in latest:  # left by an evaluation before the last one
            continue
        if run := report.facts.get("run"):
            scores.runs.setdefault((folder / run).resolve(), []).append(report)
        else:
            scores.baselines[report.facts.get("system", file.stem)] = report
    if not scores.runs and not scores.baselines:
        raise CompareError(f"there are no reports in {folder}: give the folder that eval.py wrote")
    for run, reports in scores.runs.items():
        counts = [report.facts.get("n_q") for report in reports]
        if len(set(counts)) < len(counts):
            raise CompareError(f"{folder} has two reports of {run} with the same n_q: give a folder with one")
        reports.sort(key=lambda report: -(report.facts.get("n_q") or 0))
    return scores


def write_files(result: Comparison, folder: Path, title: str) -> list[Path]:
    """Write the files into a folder, the page only where there are scores -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = result.grid.runs.copy()
    rows.insert(3, "seed", [run.seed for run in result.runs])
    rows.insert(4, "folder", [os.path.relpath(run.folder.resolve(), folder.resolve()) for run in result.runs])
    written = [folder / "compare.csv", folder / "compare.json"]
    write_atomic(written[0], rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    effects = [{**vars(effect), "difference": effect.difference._asdict()} for effect in result.grid.effects]
    content = {"runs": rows.to_dict(orient="records"), "factors": result.grid.factors, "effects": effects}
    text = json.dumps(plain(content), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(written[1], text + "\n")
    if result.scored:
        from codec.evaluation.html.report import write_page  # only where there is a page to draw

        written.append(write_page(folder / "compare.html", result.entries, title, result.grid))
    return written


def in_words(result: Comparison, metrics: Sequence[str] | None = None) -> str:
    """The runs, what became of those that did not finish, and the main effects, for the terminal."""
    table = result.grid.runs
    own = [metric for entry in result.entries for metric in entry.report.metrics if metric in table.columns]
    shown = [metric for metric in metrics or MAIN if metric in table.columns] or list(dict.fromkeys(own))
    header = ["state", "name", *map(metric_title, shown)]
    rows = [
        [row["state"], row["name"], *(_number(row[metric], "") for metric in shown)]
        for row in table.to_dict(orient="records")
    ]
    blocks = ["\n".join(aligned([header, *rows]))]
    for row in table[table["state"] != "finished"].to_dict(orient="records"):
        blocks.append(f"{row['name']} ({row['state']}): {row['reason']}\n  {row['command']}")
    effects = [effect for effect in result.grid.effects if effect.metric in shown]
    if effects:
        header = ["factor", "level", "against", "metric", "mean", "difference", "95 % interval", "pairs"]
        lines = []
        for e in effects:
            mean, low, high, n = e.difference
            interval = "" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
            title = metric_title(e.metric)
            lines.append([e.factor, e.level, e.against, title, _number(e.mean), _number(mean, "+"), interval, str(n)])
        title = "main effects: differences of runs that agree in all other factors and in the seed"
        table = "\n".join(aligned([header, *lines]))
        blocks.append(f"{title}\n{table}")
    failed = {entry.name: int(entry.report.clips[entry.report.metrics].isna().sum().sum()) for entry in result.entries}
    if counts := [f"{name}: {count}" for name, count in failed.items() if count]:
        blocks.append(f"scores of clips that failed, listed in the reports: {', '.join(counts)}")
    return "\n\n".join([*blocks, *result.notes])


def common_folder(runs: Sequence[Run]) -> Path:
    """The deepest folder that holds all the runs."""
    return Path(os.path.commonpath([run.folder.resolve() for run in runs]))


def _entry(run: Run, name: str, report: Report, folder: Path, family: str = "") -> Entry:
    timing = timings(folder).get(report.facts.get("system", name), {})
    return Entry(name, report, folder, family or name, False, run.command, timing, run.curves())


def _number(value: float, sign: str = "") -> str:
    return "" if math.isnan(value) else f"{value:{sign}.3f}"
