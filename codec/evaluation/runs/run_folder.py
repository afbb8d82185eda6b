"""Run folders of train.py: search, names, configuration, logs and final state."""

import io
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from codec.evaluation.report import Report, ReportError
from codec.evaluation.runs.factors import Settings, as_text, differences, flatten
from codec.utils.errors import InputError, first_line
from codec.utils.redact import redact, redact_override
from codec.utils.quoting import option
from codec.utils.safe_io import UntrustedFileError, read_text, read_yaml

if TYPE_CHECKING:
    import pandas

RECORD = re.compile(r"^\[[\d-]+ [\d:,]+\]\[[^]]*\]\[(?P<level>[A-Z]+)\] - ", re.MULTILINE)  # of Hydra's job log
TAIL = 2**20  # bytes of the job log in which its last error is looked for
LOSS = re.compile(r"train/(?!audio_s_per_s$)[^/]+")  # shares, norms and codebooks have a second slash


class RunError(InputError):
    """A run that does not exist or cannot be read; the message is one sentence."""


class RunStatus(NamedTuple):
    """State of a run, finished, unfinished (running or killed), failed or diverged, and the reason ("" if finished)."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Run:
    """A run folder of train.py. Files are read once, on first use; invalid ones raise RunError."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Resolved configuration without secrets; {} if the run ended before it was written."""
        config = _read_yaml(self.folder / "config.yaml", {})
        if not isinstance(config.get("max_steps"), int | None):
            raise RunError(f"{self.folder / 'config.yaml'} cannot be read: its max_steps is no number")
        return redact(config)

    @cached_property
    def overrides(self) -> list[str]:
        """Overrides of the command line or the sweep; [] if Hydra has no record of them."""
        overrides = _read_yaml(self.folder / ".hydra" / "overrides.yaml", [])
        if not all(isinstance(override, str) for override in overrides):
            raise RunError(f"{self.folder / '.hydra' / 'overrides.yaml'} cannot be read: an override is no text")
        return [redact_override(override) for override in overrides]

    @property
    def command(self) -> str:
        """Shell command that repeats the run, not resumed from itself; from config.yaml if Hydra has no overrides."""
        if not (self.folder / ".hydra" / "overrides.yaml").is_file():
            options = [f"--config-path={self.folder.resolve()}", "--config-name=config"]
            again = option("run_dir", f"{self.folder.name}-again")
            return f"{shlex.join(['python', 'train.py', *options])} {again}"
        own = f"{self.folder.resolve()}{os.sep}"
        options = (override.partition("=") for override in self.overrides)
        own_paths = {path for key, _, path in options if key == "ckpt_path" and os.path.realpath(path).startswith(own)}
        resumed = {f"ckpt_path={path}" for path in {"last", *own_paths}}
        return shlex.join(["python", "train.py", *(override for override in self.overrides if override not in resumed)])

    @cached_property
    def settings(self) -> Settings:
        """Configuration as text, for comparison with other runs."""
        choices = _at(_read_yaml(self.folder / ".hydra" / "hydra.yaml", {}), "hydra", "runtime", "choices")
        groups = {group: as_text(option) for group, option in choices.items() if not group.startswith("hydra/")}
        config = self.config or redact(_read_yaml(self.folder / ".hydra" / "config.yaml", {}))  # not resolved
        own = config.get("run_dir") if isinstance(config.get("run_dir"), str) else None
        return Settings(self.overrides, groups, flatten(config, own), complete=bool(self.config))

    @property
    def seed(self) -> str:
        """Seed as text; - if unknown."""
        return self.settings.values.get("seed", "-")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @cached_property
    def report(self) -> Report:
        """Report at the end of training. Raises ReportError if it is missing or cannot be read."""
        return Report.read(self.folder / "report.json")

    @cached_property
    def status(self) -> RunStatus:
        """Final state of the run, and the reason.

        Diverged: the last logged losses are not finite, or the report has no score. Finished: there is a report of the
        last step. Failed: the log ends with an error. Unfinished: none of these.
        """
        if nonfinite := self._nonfinite_losses():
            return RunStatus("diverged", nonfinite)
        steps = self.config.get("max_steps")
        reason = "no step has been logged"
        if (curves := self.curves()) is not None:
            last = curves["step"].max() + 1
            reason = f"it has no report, and step {last} of {steps or '?'} was the last to be logged"
        if (self.folder / "report.json").is_file():
            try:
                report = self.report
            except ReportError as error:
                reason = str(error)
            else:
                if not report.clips[report.metrics].notna().any(axis=None):
                    first = [failure["reason"] for failure in report.failures][:1]
                    return RunStatus("diverged", " ".join(["no clip of its report has a score:", *first]))
                step = report.facts.get("step")
                if steps is None or (step is not None and step >= steps):
                    return RunStatus("finished")
                reason = f"its report is of step {step} of {steps}"
        if error := self._logged_error():
            return RunStatus("failed", error)
        return RunStatus("unfinished", reason)

    def curves(self) -> "pandas.DataFrame | None":
        """Logged values by ``step``, NaN where not logged; None: no log. Later logs replace overlapping steps."""
        import pandas

        joined: pandas.DataFrame | None = None
        for file, text in self._logs:
            try:
                text = text[text["step"] != ""].drop(columns="epoch", errors="ignore")
                part = text.where(text != "").astype(float).astype({"step": int})
            except (ValueError, TypeError, OverflowError) as error:
                raise RunError(f"{file} is no log of train.py: {first_line(error)}") from error
            if part.empty:
                continue
            before = [joined[joined["step"] < part["step"].min()]] if joined is not None else []
            joined = pandas.concat([*before, part], ignore_index=True)
        return None if joined is None else joined.groupby("step", as_index=False).first()

    @cached_property
    def _logs(self) -> list[tuple[Path, "pandas.DataFrame"]]:
        """The cells of ``metrics-1.csv``, ``metrics-2.csv``, ... and ``metrics.csv`` as text, "" where empty."""
        import pandas

        folder = self.folder / "csv"
        tables = []
        for file in [*sorted(folder.glob("metrics-*.csv"), key=natural_key), *folder.glob("metrics.csv")]:
            try:
                text = io.StringIO(read_text(file))
                table = pandas.read_csv(text, dtype=str, keep_default_na=False, index_col=False)
            except pandas.errors.EmptyDataError:
                continue
            except (OSError, UntrustedFileError, pandas.errors.ParserError, ValueError) as error:
                raise RunError(f"{file} cannot be read: {first_line(error)}") from error
            if "step" not in table:
                raise RunError(f"{file} is no log of train.py: it has no column step")
            tables.append((file, table.fillna("")))
        return tables

    def _nonfinite_losses(self) -> str:
        """The last logged losses that are not finite, as text; "" if all are."""
        if not self._logs:
            return ""
        file, table = self._logs[-1]
        losses = table[[name for name in table.columns if LOSS.fullmatch(name)]]
        logged = losses[(losses != "").any(axis=1)]
        if logged.empty:
            return ""
        last = logged.iloc[-1]
        try:
            bad = [f"{name} is {text}" for name, text in last.items() if text and not math.isfinite(float(text))]
        except ValueError as error:
            raise RunError(f"{file} is no log of train.py: {error}") from error
        return f"{', '.join(bad)} at step {table['step'][last.name]}" if bad else ""

    def _logged_error(self) -> str:
        """The error that ends the job log, in one line; "" if it ends otherwise, as after resuming."""
        file = self.folder / f"{_job_name(self.folder)}.log"
        if not file.is_file():
            return ""
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - TAIL))
            text = log.read(TAIL).decode("utf-8", errors="replace")
        records = list(RECORD.finditer(text))
        if not records or records[-1]["level"] not in ("ERROR", "CRITICAL"):
            return ""
        message, _, trace = text[records[-1].end() :].partition("Traceback (most recent call last):\n")
        if trace:  # the error with its type follows the last indented line
            message = re.split(r"^ .*\n?", trace, flags=re.MULTILINE)[-1]
        return " ".join(message.removeprefix("error: ").split())


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Runs at or below the paths, each once, in natural order (2 before 10). Raises RunError for a path without runs.

    A path is a run folder, any folder above runs, or the ``wandb`` of a run folder or a W&B run in it.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise RunError(f"{path} is no folder: give run folders of train.py, or folders that hold some")
        folders = _run_folders(_outside_wandb(path))
        if not folders:
            raise RunError(f"there is no run of train.py in {path}: give run folders, or folders that hold some")
        for folder in folders:
            found.setdefault(folder.resolve(), Run(folder))
    return [found[folder] for folder in sorted(found, key=natural_key)]


def run_names(runs: Sequence[Run]) -> list[str]:
    """A unique name per run, from the settings that differ: ``disc=msd seed=0``; equal ones add their folders."""
    columns = differences([run.settings for run in runs])
    rows = zip(*columns.values(), strict=True) if columns else [()] * len(runs)
    names = [" ".join(f"{k}={v}" for k, v in zip(columns, row, strict=True) if v is not None) for row in rows]
    result = list(names)
    for name in set(names):
        same = [n for n, other in enumerate(names) if other == name]
        if not name or len(same) > 1:
            suffixes = unique_suffixes([runs[n].folder.resolve() for n in same])
            for n, suffix in zip(same, suffixes, strict=True):
                result[n] = f"{name} ({suffix})" if name else suffix
    return result


def unique_suffixes(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path, in whole parts, that distinguishes it from the others."""
    parts = [path.parts for path in paths]
    suffixes = []
    for own in parts:
        depth = next((n for n in range(1, len(own)) if sum(other[-n:] == own[-n:] for other in parts) == 1), len(own))
        suffixes.append("/".join(own[-depth:]))
    return suffixes


def natural_key(path: str | Path) -> list[tuple[int, str]]:
    """Sort key that orders numbers in paths by their value."""
    pieces = re.split(r"(\d+)", Path(path).as_posix())
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def is_run(folder: Path) -> bool:
    """Whether the folder is the run folder of a training."""
    if (folder / ".hydra" / "hydra.yaml").is_file():
        return _job_name(folder) == "train"
    return (folder / "config.yaml").is_file() and (folder / "parts.json").is_file()


def _outside_wandb(path: Path) -> Path:
    """The run folder around a folder of W&B; any other path as it is."""
    absolute = path.absolute()
    if absolute.name == "wandb":
        return absolute.parent
    if absolute.parent.name == "wandb" and re.match(r"(offline-)?run-|latest-run$", absolute.name):
        return absolute.parent.parent
    return path


def _run_folders(top: Path) -> list[Path]:
    """Run folders at or below ``top``, links followed; runs inside of runs are not searched for."""
    found, seen = [], set()
    for folder, below, _ in os.walk(top, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link to a folder above it
            below.clear()
            continue
        seen.add(real)
        if is_run(Path(folder)):
            found.append(Path(folder))
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]
    return found


def _job_name(folder: Path) -> str:
    """The name of Hydra's job, which is that of the program and of its log."""
    name = _at(_read_yaml(folder / ".hydra" / "hydra.yaml", {}), "hydra", "job").get("name", "train")
    return name if isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) else ""  # no path


def _at(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The mapping below these keys; {} if there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content.get(key), dict) else {}
    return content


def _read_yaml(path: Path, empty: Any) -> Any:
    """Content of a YAML file, of the type of ``empty``; ``empty`` for a missing or empty file."""
    if not path.is_file():
        return empty
    try:
        content = read_yaml(path)
    except (OSError, UntrustedFileError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if content is None:  # while it is written
        return empty
    if not isinstance(content, type(empty)):
        raise RunError(f"{path} cannot be read: it holds a {type(content).__name__}, not a {type(empty).__name__}")
    return content
