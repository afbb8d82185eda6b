"""What an evaluation found: numbers with intervals, and what failed.

A report is reproducible: the same evaluation written twice gives the same bytes (no time stamps, sorted keys,
six significant digits). What could not be scored is NaN in the table, null in JSON, counted per metric and
listed.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from codec.evaluation.metrics.intervals import bootstrap
from codec.evaluation.metrics.table import ALL_METRICS
from codec.evaluation.report_schema import ABOUT_CLIP, check_report
from codec.utils.errors import InputError
from codec.utils.safe_io import read_json

LARGEST = 64_000_000  # bytes of a report that is read; one of 100,000 clips has about 30 million


class ReportError(InputError):
    """A file is no report; the message says which and why."""


@dataclass
class Report:
    """The result of one evaluation of one system.

    clips: one row per clip: clip (unique), speaker, seconds, then one column per metric, NaN where it failed.
    failures: {clip, metric, reason}; the metric is "system" where the system itself raised.
    facts: what the numbers belong to (sample_rate Hz, frame_rate Hz, n_q, kbit/s, parameters, checkpoint
        step ...): numbers, text, None, and lists or dicts of them.
    audio: clip -> {"reference": FILE, "decoded": FILE} for those that can be heard, FILE from the folder that the
        report is written to.
    """

    clips: pandas.DataFrame
    failures: list[dict[str, str]]
    facts: dict[str, Any]
    audio: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "Report":
        """The report that `write` left at `path`, a JSON file.

        Raises ReportError if there is none, or it is no report: everything in it is checked, since reports are passed
        around, and pages show what they say and embed the files that they name.
        """
        path = Path(path)
        try:
            content = read_json(path, LARGEST)
            metrics = check_report(content)
        except OSError as error:
            raise ReportError(f"there is no report at {path}: {error.strerror}") from error
        except ValueError as error:
            raise ReportError(f"{path} is no report of this project: {error}") from error
        clips = pandas.DataFrame(content["clips"])
        clips = clips[[*ABOUT_CLIP, *metrics]].astype(dict.fromkeys(metrics, float))
        return cls(clips, content["failures"], content["facts"], content.get("audio", {}))

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, in the order of the table."""
        return [column for column in self.clips.columns if column not in ABOUT_CLIP]

    def summary(self) -> dict[str, dict[str, float]]:
        """metric -> {mean, low, high, n, failed}: 95 % bootstrap interval over the `n` clips with a score."""
        return {
            name: {**bootstrap(self.clips[name])._asdict(), "failed": int(self.clips[name].isna().sum())}
            for name in self.metrics
        }

    def table(self) -> str:
        """Plain text for the terminal."""
        lines = aligned(list(self._rows()))
        lines += ["", *(f"{name}: {show(value)}" for name, value in self.facts.items())]
        if self.failures:
            lines += ["", f"failures: {len(self.failures)}"]
            lines += [f"  {line}" for line in self._failure_lines(most=10)]
        return "\n".join(lines)

    def markdown(self) -> str:
        """The same as Markdown, with every failure listed."""
        header, *rows = self._rows()
        lines = ["# Evaluation", "", *_markdown_table(header, rows), ""]
        lines += ["Mean over clips with a 95 % bootstrap interval; the arrow points to better.", ""]
        facts = [[name, show(value)] for name, value in self.facts.items()]
        lines += _markdown_table(["fact", "value"], facts)
        if self.failures:
            lines += ["", "## Failures", "", *(f"- {_cell(line)}" for line in self._failure_lines())]
        return "\n".join(lines) + "\n"

    def write(self, folder: str | Path, stem: str = "report") -> Path:
        """Write `stem`.json, .md and .csv (one row per clip) into `folder`; returns the JSON file's path.

        Each file appears whole or not at all (temporary file, then rename).
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "facts": self.facts,
            "metrics": self.metrics,
            "audio": self.audio,
            "summary": self.summary(),
            "failures": self.failures,
            "clips": self.clips.to_dict(orient="records"),
        }
        text = json.dumps(plain(content), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        rows = self.clips.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomic(folder / f"{stem}.json", text + "\n")
        write_atomic(folder / f"{stem}.md", self.markdown())
        write_atomic(folder / f"{stem}.csv", rows)
        return folder / f"{stem}.json"

    def _rows(self) -> Iterator[list[str]]:
        yield ["metric", "mean", "95 % interval", "clips", "failed"]
        for key, entry in self.summary().items():
            mean, low, high = (f"{entry[name]:.3f}" for name in ("mean", "low", "high"))
            interval = f"[{low}, {high}]" if entry["n"] > 1 else ""
            yield [metric_title(key), mean, interval, str(entry["n"]), str(entry["failed"])]

    def _failure_lines(self, most: int | None = None) -> list[str]:
        lines = [f"{failure['clip']}, {failure['metric']}: {failure['reason']}" for failure in self.failures]
        if most is not None and len(lines) > most:
            lines = [*lines[:most], f"... and {len(lines) - most} more"]
        return lines


def overview(reports: Mapping[str, Report]) -> str:
    """Plain text: one line per system, the means of all metrics, with their count of failures where there are any."""
    keys = list(dict.fromkeys(key for report in reports.values() for key in report.metrics))
    rows = [["system", "kbit/s", *(metric_title(key) for key in keys)]]
    for name, report in reports.items():
        summary = report.summary()
        kbps = report.facts.get("kbps")
        cells = [f"{kbps:.2f}" if kbps and math.isfinite(kbps) else "-"]
        for key in keys:
            entry = summary.get(key)
            failed = f" ({entry['failed']} failed)" if entry and entry["failed"] else ""
            cells.append(f"{entry['mean']:.3f}{failed}" if entry else "-")
        rows.append([name, *cells])
    return "\n".join(aligned(rows))


def metric_title(key: str) -> str:
    """Name, unit and direction of a metric, such as `SI-SDR (dB) ↑`."""
    metric = ALL_METRICS.get(key)
    if metric is None:
        return key
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.name}{unit} {'↑' if metric.higher_is_better else '↓'}"


def write_atomic(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """NumPy scalars to Python's, floats to six significant digits, NaN and infinity to None, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def show(value: Any) -> str:
    """A fact as text: floats with six significant digits, a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table, a rule under the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _markdown_table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(map(_cell, cells))} |" for cells in (header, ["---"] * len(header), *rows)]


def _cell(text: str) -> str:
    """Text on one line that ends no cell of a Markdown table."""
    return " ".join(text.splitlines()).replace("|", r"\|")
