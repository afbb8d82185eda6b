"""`Report`: scores of one system on clips, with intervals, failures and facts; reproducible to the byte."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codec.evaluation.metrics.intervals import by_speaker, mean_interval
from codec.evaluation.report_schema import CLIP_COLUMNS, ReportFile
from codec.utils.atomic import write_atomic
from codec.utils.errors import InputError
from codec.utils.safe_io import UntrustedFileError, parse_as, read_json

if TYPE_CHECKING:
    import pandas

LARGEST = 64_000_000  # bytes of a report that is read; one of 100,000 clips has about 30 million


class ReportError(InputError):
    """A report, or a file beside it, that cannot be used; the message says which and why."""


@dataclass
class Report:
    """Result of one evaluation of one system.

    clips: a row per clip: clip (unique), speaker, seconds, then a column per metric, NaN where it failed.
    failures: {clip, metric, reason}; the metric is "system" if the system raised, "file" for an unreadable file.
    facts: JSON values about the system and the evaluation (sample_rate Hz, frame_rate Hz, n_q, kbps, step ...).
    audio: clip -> {"reference": FILE, "decoded": FILE}, relative to the folder of the report.
    """

    clips: "pandas.DataFrame"
    failures: list[dict[str, str]]
    facts: dict[str, Any]
    audio: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "Report":
        """Read a JSON file of `write`. Raises ReportError if it is missing or does not fit `ReportFile`."""
        import pandas

        try:
            content = read_json(Path(path), LARGEST)
            metrics = parse_as(ReportFile, content, "content").metric_names
        except OSError as error:
            raise ReportError(f"there is no report at {path}: {error.strerror}") from error
        except UntrustedFileError as error:
            raise ReportError(f"{path} is no report of this project: {error}") from error
        clips = pandas.DataFrame(content["clips"])
        clips = clips[[*CLIP_COLUMNS, *metrics]].astype(dict.fromkeys(metrics, float))
        return cls(clips, content["failures"], content["facts"], content.get("audio", {}))

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, in the order of the columns."""
        return [column for column in self.clips.columns if column not in CLIP_COLUMNS]

    def summary(self) -> dict[str, dict[str, float]]:
        """metric -> {mean, low, high, n, speakers, failed}: mean over the ``n`` clips with a score, 95 % interval over
        their ``speakers``; None: the clips count as independent (:func:`.metrics.intervals.by_speaker`)."""
        groups, _ = by_speaker(self.clips["speaker"])
        rows = {}
        for name in self.metrics:
            row = mean_interval(self.clips[name], groups)._asdict()
            speakers = row.pop("groups")
            row["speakers"] = None if groups is None else speakers
            rows[name] = row | {"failed": int(self.clips[name].isna().sum())}
        return rows

    def table(self) -> str:
        """The report as plain text, with at most ten failures."""
        lines = [*text_table(list(self._rows())), "", self._about_intervals(), ""]
        lines += [f"{name}: {format_fact(value)}" for name, value in self.facts.items()]
        if self.failures:
            lines += ["", f"failures: {len(self.failures)}", *(f"  {line}" for line in self._failure_lines()[:10])]
        if len(self.failures) > 10:
            lines.append(f"  ... and {len(self.failures) - 10} more")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The report as Markdown, with all failures."""
        header, *rows = self._rows()
        lines = ["# Evaluation", "", *_markdown_table(header, rows), ""]
        lines += [f"Mean over clips; the arrow points to better. {self._about_intervals()}", ""]
        lines += _markdown_table(["fact", "value"], [[name, format_fact(value)] for name, value in self.facts.items()])
        if self.failures:
            lines += ["", "## Failures", "", *(f"- {_markdown_cell(line)}" for line in self._failure_lines())]
        return "\n".join(lines) + "\n"

    def write(self, folder: str | Path, stem: str = "report") -> Path:
        """Write ``stem``.json, .md and .csv (one row per clip) into ``folder`` atomically; returns the JSON file."""
        path, values = Path(folder) / f"{stem}.json", self.clips[self.metrics].to_numpy(dtype=float)
        rounded = self.clips.copy()  # as the file has them, so that a report that is read has the same summary
        rounded[self.metrics] = np.array(json_values(values.tolist()), dtype=float)
        content = {
            "facts": self.facts,
            "metrics": self.metrics,
            "audio": self.audio,
            "summary": replace(self, clips=rounded).summary(),
            "failures": self.failures,
            "clips": self.clips.to_dict(orient="records"),
        }
        rows = self.clips.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_json(path, content)
        write_atomic(path.with_name(f"{stem}.md"), self.markdown())
        write_atomic(path.with_name(f"{stem}.csv"), rows)
        return path

    def _rows(self) -> Iterator[list[str]]:
        yield ["metric", "mean", "95 % interval", "clips", "speakers", "failed"]
        for key, row in self.summary().items():
            interval = "" if math.isnan(row["low"]) else f"[{row['low']:.3f}, {row['high']:.3f}]"
            counts = (format_fact(row[name]) for name in ("n", "speakers", "failed"))
            yield [metric_title(key), f"{row['mean']:.3f}", interval, *counts]

    def _about_intervals(self) -> str:
        return f"A 95 % interval is over {by_speaker(self.clips['speaker'])[1]}."

    def _failure_lines(self) -> list[str]:
        return [f"{failure['clip']}, {failure['metric']}: {failure['reason']}" for failure in self.failures]


def overview(reports: Mapping[str, Report]) -> str:
    """Plain text: a line per system with its bitrate, and each metric's mean and number of failures, if any."""
    keys = list(dict.fromkeys(key for report in reports.values() for key in report.metrics))
    rows = [["system", "kbit/s", *map(metric_title, keys)]]
    for name, report in reports.items():
        summary, kbps = report.summary(), report.facts.get("kbps")
        cells = [f"{kbps:.2f}" if kbps and math.isfinite(kbps) else "-"]
        for key in keys:
            row = summary.get(key)
            failed = f" ({row['failed']} failed)" if row and row["failed"] else ""
            cells.append(f"{row['mean']:.3f}{failed}" if row else "-")
        rows.append([name, *cells])
    return "\n".join(text_table(rows))


def metric_title(key: str) -> str:
    """Name, unit and direction of a metric, such as `SI-SDR (dB) ↑`; the key of an unknown one."""
    from codec.evaluation.metrics.table import ALL_METRICS  # imports the metrics, which takes seconds

    if (metric := ALL_METRICS.get(key)) is None:
        return key
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.name}{unit} {'↑' if metric.higher_is_better else '↓'}"


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; the same content gives the same bytes."""
    text = json.dumps(json_values(content), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, f"{text}\n")


def json_values(value: Any) -> Any:
    """NumPy scalars to Python's, floats to six significant digits, NaN and infinity to None."""
    if isinstance(value, Mapping):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def format_fact(value: Any) -> str:
    """A fact as text: floats with six significant digits, a dash for None."""
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def text_table(rows: list[list[str]]) -> list[str]:
    """Lines of a plain-text table: aligned columns, a rule under the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _markdown_table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(map(_markdown_cell, cells))} |" for cells in (header, ["---"] * len(header), *rows)]


def _markdown_cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", r"\|")
