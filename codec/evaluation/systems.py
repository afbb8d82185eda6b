"""Systems under evaluation: checkpoints with a number of codebooks each, and baselines."""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from codec.checkpoints.load import CheckpointError, load_checkpoint, load_codec
from codec.checkpoints.safe_instantiate import DATA, build
from codec.data.base import Corpus, CorpusError, readable
from codec.evaluation.baselines.base import System
from codec.evaluation.baselines.codec import CodecSystem
from codec.evaluation.evaluate import evaluate, file_name
from codec.evaluation.html.base import SystemResult, family_of
from codec.evaluation.profiling import real_time_factors
from codec.evaluation.report import Report
from codec.evaluation.runs.run_folder import Run, RunError, find_runs, is_run, run_names, unique_suffixes
from codec.model import Codec
from codec.quantizers.base import Quantizer

log = logging.getLogger(__name__)
RESERVED = ("reference", "timing", "compare")  # file names with another meaning


@dataclass
class LoadedCheckpoint:
    """A checkpoint of a codec with its configuration and, if it is inside a run folder, its run."""

    path: Path
    config: dict[str, Any]
    step: int
    run: Run | None
    averaged: bool  # has averaged weights (EMA)

    @property
    def sample_rate(self) -> int:
        return self.config["codec"]["sample_rate"]


@dataclass
class EvaluatedSystem:
    """One system of an evaluation; ``make`` builds it when its evaluation begins."""

    name: str  # unique
    make: Callable[[], System]
    family: str  # shared by systems that differ in bitrate alone
    facts: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None
    baseline: bool = False
    first: bool = True  # of its family

    def evaluate(
        self, corpus: Corpus, clips: Sequence, folder: Path, limit: int | None, facts: Mapping[str, Any], **options: Any
    ) -> SystemResult:
        """Score the first ``limit`` readable clips of the corpus and write the report into ``folder``.

        The report gets ``facts`` and the path of the run; ``options``: see :func:`codec.evaluation.evaluate.evaluate`.
        """
        skipped: list[tuple[str, str]] = []
        run = {"run": os.path.relpath(self.run.folder.resolve(), folder.resolve())} if self.run else {}
        options |= {"name": self.name, "folder": folder, "unread": [corpus.bad, skipped]}
        system, clips = self.make(), readable(clips, skipped, limit)
        report = evaluate(
            system, clips, corpus.sample_rate, {**self.facts, **run, **facts, **corpus.facts()}, **options
        )
        report.write(folder, file_name(self.name))
        return self.result(report, folder, system)

    def result(self, report: Report, folder: Path, system: System) -> SystemResult:
        """The report with the command, training curves and real-time factors on this machine, for a page."""
        timing = real_time_factors(system.codec, system.n_q or None) if isinstance(system, CodecSystem) else {}
        command = self.run.command if self.run else ""
        curves = self.run.curves() if self.run and self.first else None
        return SystemResult(self.name, report, folder, self.family, self.baseline, command, timing, curves)


def find_checkpoints(ckpt: str | Iterable[str] | None) -> list[LoadedCheckpoint]:
    """Checkpoints at these paths: files, run folders (their last one), or folders of runs, such as a sweep's."""
    if ckpt is not None and not isinstance(ckpt, str | list):
        raise CheckpointError(f"ckpt={ckpt}: give a path, or a list of paths")
    runs: dict[Path, Run | None] = {}
    for path in map(Path, [ckpt] if isinstance(ckpt, str) else ckpt or []):
        if path.is_dir():
            runs |= _last_checkpoints(path)
        else:
            folder = path.resolve().parent.parent
            runs[path.resolve()] = Run(folder) if is_run(folder) else None
    checkpoints = []
    for path, run in runs.items():
        content = load_checkpoint(path)
        config = content["config"]
        if not isinstance(config.get("codec"), dict) or not isinstance(config["codec"].get("sample_rate"), int):
            raise CheckpointError(f"{path} is no checkpoint of a codec: its configuration has none with a sample_rate")
        step, averaged = content.get("global_step", 0), bool(content.get("ema"))
        checkpoints.append(LoadedCheckpoint(path, config, step, run, averaged))
    return checkpoints


def _last_checkpoints(folder: Path) -> dict[Path, Run]:
    """Last checkpoint -> run, of the runs at or below a folder."""
    try:
        runs = find_runs([folder])
    except RunError as error:
        raise CheckpointError(str(error)) from error
    found = {run.checkpoint.resolve(): run for run in runs if run.checkpoint.is_file()}
    if not found:
        raise CheckpointError(f"no run in {folder} has a checkpoint yet")
    for run in runs:
        if run.checkpoint.resolve() not in found:
            log.warning("%s is left out: it has no checkpoint yet", run.folder)
    return found


def build_systems(
    checkpoints: list[LoadedCheckpoint],
    n_q: int | str | Iterable[int] | None = None,
    baselines: Mapping[str, System] | None = None,
    ema: bool = True,
    device: str | torch.device = "cpu",
    beam: int = 1,
) -> list[EvaluatedSystem]:
    """Every checkpoint with each ``n_q`` (None: all codebooks; ``curve``: 1, 2, 4, ... and all), then the baselines.

    ``beam``: paths of the search for codes. Raises CheckpointError for counts and beams that a codec does not have.
    """
    load = functools.lru_cache(maxsize=1)(lambda path: _loaded(path, ema, beam))  # once for all numbers of codebooks
    systems = []
    for checkpoint, family in zip(checkpoints, _checkpoint_names(checkpoints), strict=True):
        path = checkpoint.path
        counts = [None] if n_q is None else codebook_counts(path, load(path).quantizer, n_q)
        weights = "averaged" if ema and checkpoint.averaged else "last"
        for count in counts:
            name = f"{family} n_q={count}" if n_q is not None else family
            facts = {"system": name, "checkpoint": path.name, "step": checkpoint.step, "weights": weights}
            make = functools.partial(lambda path, count: CodecSystem(load(path), count, device), path, count)
            systems.append(EvaluatedSystem(name, make, family, facts, checkpoint.run, first=count == counts[0]))
    for name, system in (baselines or {}).items():
        make = functools.partial(lambda system: system, system)
        systems.append(EvaluatedSystem(name, make, family_of(name), {"system": name}, baseline=True))
    if not systems:
        raise CheckpointError("there is nothing to evaluate: give ckpt=PATH, baseline=NAME, or both")
    files = [file_name(system.name) for system in systems]
    for system, file in zip(systems, files, strict=True):
        if file in RESERVED or files.count(file) > 1:
            raise CheckpointError(f"the name {system.name!r} is not unique: rename it, or evaluate it by itself")
    return systems


def _loaded(path: Path, ema: bool, beam: int) -> Codec:
    codec = load_codec(path, ema)[0]
    try:
        return codec.search_with(beam)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def codebook_counts(path: Path, quantizer: Quantizer, n_q: int | str | Iterable[int]) -> list[int | None]:
    """Numbers of codebooks that ``n_q`` selects for the codec at ``path``; [None] for a continuous curve."""
    if n_q == "curve":
        powers = [2**i for i in range(quantizer.n_q.bit_length()) if 2**i < quantizer.n_q]
        return [*powers, quantizer.n_q or None]
    counts = list(dict.fromkeys([n_q] if isinstance(n_q, int) else n_q)) if not isinstance(n_q, str | float) else []
    if not counts or not all(isinstance(count, int) for count in counts):
        raise CheckpointError(f"n_q={n_q}: give a number, a list such as [1,2,4], or curve")
    try:
        return [quantizer.check_n_q(count) for count in counts]
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _checkpoint_names(checkpoints: list[LoadedCheckpoint]) -> list[str]:
    """Unique names: of runs their settings that differ (of a single one its ``name``), else the ends of the paths."""
    if len(checkpoints) == 1 and checkpoints[0].run:
        return [str(checkpoints[0].config.get("name", checkpoints[0].path.stem))]
    runs = {c.run.folder.resolve(): c.run for c in checkpoints if c.run}
    names_of_runs = dict(zip(runs, run_names(list(runs.values())), strict=True))
    ends = unique_suffixes([c.path.with_suffix("") for c in checkpoints])
    names = [names_of_runs[c.run.folder.resolve()] if c.run else end for c, end in zip(checkpoints, ends, strict=True)]
    return [  # checkpoints of the same run are distinguished by their files
        f"{name} {c.path.stem}" if c.run and names.count(name) > 1 else name
        for name, c in zip(names, checkpoints, strict=True)
    ]


def corpus_of(checkpoints: list[LoadedCheckpoint], sample_rate: int) -> Corpus:
    """Training dataset of the first checkpoint, at ``sample_rate`` Hz; logged, as checkpoints are exchanged."""
    if not checkpoints or "dataset" not in checkpoints[0].config:
        raise CorpusError("no checkpoint names a dataset of this package: give dataset=folder dataset.path=DIR")
    config = checkpoints[0].config["dataset"]
    corpus = build({**config, "sample_rate": sample_rate}, DATA)
    options = " ".join(f"{key}={value}" for key, value in config.items() if not isinstance(value, dict))
    log.info("the dataset is that of %s (dataset= names another): %s", checkpoints[0].path, options)
    return corpus


def out_folder(checkpoints: list[LoadedCheckpoint], out: str | None = None) -> Path:
    """The folder ``out``; by default one beside the only checkpoint, or in the deepest folder common to all."""
    if out or not checkpoints:
        return Path(out or "runs/eval")
    if len(checkpoints) == 1:
        return checkpoints[0].path.parent / f"eval_{checkpoints[0].path.stem}"
    return Path(os.path.commonpath([c.path.resolve().parent for c in checkpoints])) / "eval"
