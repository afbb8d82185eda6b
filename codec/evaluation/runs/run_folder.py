"""The runs that train.py left behind: where they are, what they were told, how they ended."""

import csv
import io
import math
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas

from codec.utils.errors import InputError
from codec.evaluation.runs.factors import Settings, as_text, differences, flat
from codec.utils.safe_io import UntrustedFileError, read_text, read_yaml
from codec.utils.redact import redact, redact_override
from codec.evaluation.report import Report, ReportError

RECORD = re.compile(r"^\[[\d-]+ [\d:,]+\]\[[^]]*\]\[(?P<level>[A-Z]+)\] - ", re.MULTILINE)  # of Hydra's job log
TAIL = 2**20  # bytes of the job log in which its last error is looked for
LOSS = re.compile(r"train/(?!audio_s_per_s$)[^/]+")  # shares, norms and codebooks have a second slash


class RunError(InputError):
    """There is no run where one was asked for, or it cannot be read; the message is one sentence."""


class Verdict(NamedTuple):
    """How a run ended: finished, unfinished, failed or diverged, and why in a sentence ("" where it finished)."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Run:
    """One run folder. Everything is read once, when it is first asked for.

    Raises RunError where a file that train.py and Hydra write is there, but is not what they write.
    """

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, plain; {} if the run ended before it was written."""
        config = _yaml(self.folder / "config.yaml", {})
        if not isinstance(config.get("max_steps"), int | None):
            raise RunError(f"{self.folder / 'config.yaml'} cannot be read: its max_steps is no number")
        return redact(config)

    @cached_property
    def overrides(self) -> list[str]:
        """What was given on the command line, or by the sweep; [] where Hydra left no record of it."""
        overrides = _yaml(self.folder / ".hydra" / "overrides.yaml", [])
        if not all(isinstance(override, str) for override in overrides):
            raise RunError(f"{self.folder / '.hydra' / 'overrides.yaml'} cannot be read: an override is no text")
        return [redact_override(override) for override in overrides]

    @property
    def command(self) -> str:
        """The command that repeats the run, quoted for a shell.

        A run whose folder was ``run_dir=`` has no record of its command: its configuration is repeated, as it is, in a
        folder of its own. That it was resumed from itself is no part of it.
        """
        if not (self.folder / ".hydra" / "overrides.yaml").is_file():
            where = [f"--config-path={self.folder.resolve()}", "--config-name=config"]
            return shlex.join(["python", "train.py", *where, f"run_dir={self.folder.name}-again"])
        mine = str(self.folder.resolve())
        repeated = [o for o in self.overrides if not (o.startswith("ckpt_path=") and _inside(o[10:], mine))]
        return shlex.join(["python", "train.py", *repeated])

    @cached_property
    def settings(self) -> Settings:
        """What tells this run from others."""
        choices = _choices(_yaml(self.folder / ".hydra" / "hydra.yaml", {}))
        groups = {group: as_text(option) for group, option in choices.items() if not group.startswith("hydra/")}
        config = self.config or redact(_yaml(self.folder / ".hydra" / "config.yaml", {}))  # composed, but not resolved
        own = config.get("run_dir") if isinstance(config.get("run_dir"), str) else None
        return Settings(self.overrides, groups, flat(config, own), complete=bool(self.config))

    @property
    def seed(self) -> str:
        """As text; - where it is not known."""
        return self.settings.values.get("seed", "-")

    @property
    def checkpoint(self) -> Path:
        """Where the last checkpoint is, if there is one."""
        return self.folder / "checkpoints" / "last.ckpt"

    @cached_property
    def report(self) -> Report:
        """The report that training ends with. Raises ReportError if there is none, or it cannot be read."""
        return Report.read(self.folder / "report.json")

    @property
    def state(self) -> str:
        """finished, unfinished (it goes on, or was killed), failed or diverged."""
        return self.verdict.state

    @property
    def reason(self) -> str:
        """Why it is not finished, in a sentence; "" where it is."""
        return self.verdict.reason

    @cached_property
    def verdict(self) -> Verdict:
        """How the run ended.

        Diverged: the last losses that were logged are not all finite, or the report has not one score. Finished: there
        is a report of the last step. Failed: its log ends with an error. Unfinished: none of these.
        """
        if lost := self._lost():
            return Verdict("diverged", lost)
        steps = self.config.get("max_steps")
        why = self._progress(steps)
        if (self.folder / "report.json").is_file():
            try:
                report = self.report
            except ReportError as error:
                why = str(error)
            else:
                if not report.clips[report.metrics].notna().any(axis=None):
                    reasons = [failure["reason"] for failure in report.failures]
                    return Verdict("diverged", " ".join(["no clip of its report has a score:", *reasons[:1]]))
                step = report.facts.get("step")
                if steps is None or (step is not None and step >= steps):
                    return Verdict("finished")
                why = f"its report is of step {step} of {steps}"
        if error := self._error():
            return Verdict("failed", error)
        return Verdict("unfinished", why)

    def curves(self) -> pandas.DataFrame | None:
        """A row per step with ``step`` and one column per logged value, NaN where it was not logged; None: no log.

        Parts of a run that was resumed follow one another; steps that two parts have are those of the later one.
        """
        whole: pandas.DataFrame | None = None
        for file in self._logs():
            try:
                part = pandas.read_csv(io.StringIO(_log(file)))
                part = part.dropna(subset="step").drop(columns="epoch", errors="ignore")
                part = part.astype(float).astype({"step": int})
            except pandas.errors.EmptyDataError:
                continue
            except (pandas.errors.ParserError, KeyError, ValueError, TypeError, OverflowError) as error:
                raise RunError(f"{file} is no log of train.py: {str(error).strip().splitlines()[0][:200]}") from error
            if part.empty:
                continue
            before = [whole[whole["step"] < part["step"].min()]] if whole is not None else []
            whole = pandas.concat([*before, part], ignore_index=True)
        return None if whole is None else whole.groupby("step", as_index=False).first()

    def _logs(self) -> list[Path]:
        """CSV files, first part first: ``metrics-1.csv``, ``metrics-2.csv`` ... and ``metrics.csv``."""
        folder = self.folder / "csv"
        last = [folder / "metrics.csv"] if (folder / "metrics.csv").is_file() else []
        return sorted(folder.glob("metrics-*.csv"), key=natural) + last

    def _lost(self) -> str:
        """Which of the losses that were logged last are not finite; "" if none."""
        if not self._logs():
            return ""
        file = self._logs()[-1]
        try:
            rows = list(csv.DictReader(io.StringIO(_log(file), newline="")))  # pandas reads an empty cell and nan alike
        except csv.Error as error:
            raise RunError(f"{file} is no log of train.py: {error}") from error
        for row in reversed(rows):
            losses = {name: text for name, text in row.items() if text and LOSS.fullmatch(name or "")}
            if losses:
                try:
                    bad = [f"{name} is {text}" for name, text in losses.items() if not math.isfinite(float(text))]
                except ValueError as error:
                    raise RunError(f"{file} is no log of train.py: {error}") from error
                return f"{', '.join(bad)} at step {row.get('step')}" if bad else ""
        return ""

    def _progress(self, steps: int | None) -> str:
        curves = self.curves()
        if curves is None:
            return "no step has been logged"
        return f"it has no report, and step {curves['step'].max() + 1} of {steps or '?'} was the last to be logged"

    def _error(self) -> str:
        """The error that ends the job log, in one line; "" if it ends otherwise, as after resuming."""
        file = self.folder / f"{_job(self.folder)}.log"
        if not file.is_file():
            return ""
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - TAIL))
            text = log.read(TAIL).decode("utf-8", errors="replace")
        records = list(RECORD.finditer(text))
        if not records or records[-1]["level"] not in ("ERROR", "CRITICAL"):
            return ""
        message, _, trace = text[records[-1].end() :].partition("Traceback (most recent call last):\n")
        if trace:  # what follows the last of its indented lines: the error with its type
            lines = trace.rstrip().splitlines()
            indented = [n for n, line in enumerate(lines) if line.startswith(" ")]
            message = "\n".join(lines[indented[-1] + 1 :]) if indented else trace
        return " ".join(message.removeprefix("error: ").split())


def discover(paths: Iterable[str | Path]) -> list[Run]:
    """The runs that are at or below the paths, each once, in natural order of their folders (2 before 10).

    A path is a run folder, the folder of a multirun or any other above runs, or, for runs with W&B, the ``wandb`` in a
    run folder or the ``offline-run-*`` or ``run-*`` in that.

    Raises:
        RunError: if a path is no folder, or there is no run in it.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise RunError(f"{path} is no folder: give run folders of train.py, or folders that hold some")
        here = _below(_outside_wandb(path))
        if not here:
            raise RunError(f"there is no run of train.py in {path}: give run folders, or folders that hold some")
        for folder in here:
            found.setdefault(folder.resolve(), Run(folder))
    return [found[folder] for folder in sorted(found, key=natural)]


def names(runs: Sequence[Run]) -> list[str]:
    """A short name for each run, from what differs between them: ``disc=msd seed=0``.

    Runs that nothing tells apart get their folders' names, as many levels as it takes.
    """
    columns = differences([run.settings for run in runs])
    rows = zip(*columns.values(), strict=True) if columns else [()] * len(runs)
    named = [" ".join(f"{k}={v}" for k, v in zip(columns, row, strict=True) if v is not None) for row in rows]
    folders = [run.folder.resolve() for run in runs]
    result = list(named)
    for name in set(named):
        same = [n for n, own in enumerate(named) if own == name]
        if not name or len(same) > 1:
            for n, where in zip(same, unique_ends([folders[n] for n in same]), strict=True):
                result[n] = f"{name} ({where})" if name else where
    return result


def unique_ends(paths: Sequence[Path]) -> list[str]:
    """The last part of each path, with as many before it as tell it from the others of that last part."""
    parts = [path.parts for path in paths]
    ends = []
    for own in parts:
        depth = next((n for n in range(1, len(own)) if sum(other[-n:] == own[-n:] for other in parts) == 1), len(own))
        ends.append("/".join(own[-depth:]))
    return ends


def natural(path: str | Path) -> list[tuple[int, str]]:
    """A key to sort paths by, in which numbers count as numbers."""
    pieces = re.split(r"(\d+)", Path(path).as_posix())
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def _inside(path: str, folder: str) -> bool:
    return path == "last" or os.path.realpath(path).startswith(f"{folder}{os.sep}")


def _outside_wandb(path: Path) -> Path:
    """The run folder around a folder of W&B; any other path as it is."""
    absolute = path.absolute()
    if absolute.name == "wandb":
        return absolute.parent
    if absolute.parent.name == "wandb" and re.match(r"(offline-)?run-|latest-run$", absolute.name):
        return absolute.parent.parent
    return path


def _below(top: Path) -> list[Path]:
    """Run folders at or below ``top``; they are not searched themselves."""
    found, seen = [], set()
    for folder, below, _ in os.walk(top, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link back to where it lies
            below.clear()
            continue
        seen.add(real)
        if is_run(Path(folder)):
            found.append(Path(folder))
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]
    return found


def is_run(folder: Path) -> bool:
    """Whether train.py has written into this very folder."""
    if (folder / ".hydra" / "hydra.yaml").is_file():
        return _job(folder) == "train"
    return (folder / "config.yaml").is_file() and (folder / "parts.json").is_file()


def _job(folder: Path) -> str:
    """The name of Hydra's job, which is that of the program and of its log."""
    name = _at(_yaml(folder / ".hydra" / "hydra.yaml", {}), "hydra", "job").get("name", "train")
    return name if isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) else ""  # never a path


def _choices(hydra: dict[str, Any]) -> dict[str, str | None]:
    return _at(hydra, "hydra", "runtime", "choices")


def _at(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The mapping below these keys; {} where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content.get(key), dict) else {}
    return content


def _log(file: Path) -> str:
    try:
        return read_text(file)
    except (OSError, UntrustedFileError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error


def _yaml(path: Path, empty: Any) -> Any:
    """The content of a YAML file, of the type of ``empty``, which stands for a file that is not there."""
    if not path.is_file():
        return empty
    try:
        content = read_yaml(path)
    except (OSError, UntrustedFileError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if content is None:  # a file that is being written
        return empty
    if not isinstance(content, type(empty)):
        raise RunError(f"{path} cannot be read: it holds a {type(content).__name__}, not a {type(empty).__name__}")
    return content
