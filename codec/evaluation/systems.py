"""Who takes part in an evaluation: codecs of ours, with so many codebooks each, and baselines."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from codec.checkpoints.load import CheckpointError, load_checkpoint, load_codec
from codec.checkpoints.safe_instantiate import DATA, build
from codec.data.base import Corpus, CorpusError
from codec.evaluation.baselines.base import System
from codec.evaluation.baselines.codec import CodecSystem
from codec.evaluation.evaluate import file_name
from codec.evaluation.html.base import Entry, family_of
from codec.evaluation.profiling import real_time_factors
from codec.evaluation.report import Report
from codec.evaluation.runs.run_folder import Run, RunError, discover, is_run, names, unique_ends
from codec.quantizers.base import Quantizer

log = logging.getLogger(__name__)
RESERVED = ("reference", "timing", "compare")  # file names that mean something else


@dataclass
class LoadedCheckpoint:
    """A checkpoint, the configuration inside it, and its run, where it lies in a run folder."""

    path: Path
    config: dict[str, Any]
    step: int
    run: Run | None
    averaged: bool  # whether it has averaged weights

    @property
    def sample_rate(self) -> int:
        return self.config["codec"]["sample_rate"]


@dataclass
class EvaluatedSystem:
    """One system of an evaluation.

    name: unique.
    make: builds it; a codec only when it is its turn.
    family: the same for systems that differ in bitrate alone; of baselines, the name without its number.
    """

    name: str
    make: Callable[[], System]
    family: str
    facts: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None
    baseline: bool = False
    first: bool = True  # of its family

    def where(self, folder: Path) -> dict[str, str]:
        """The fact ``run`` of a report in ``folder``: the run folder, from there."""
        return {"run": os.path.relpath(self.run.folder.resolve(), folder.resolve())} if self.run else {}

    def entry(self, report: Report, folder: Path, system: System) -> Entry:
        """What a page shows of it, real-time factors on this machine included."""
        timing = real_time_factors(system.codec, system.n_q or None) if isinstance(system, CodecSystem) else {}
        command = self.run.command if self.run else ""
        curves = self.run.curves() if self.run and self.first else None
        return Entry(self.name, report, folder, self.family, self.baseline, command, timing, curves)


def find(ckpt: str | Iterable[str] | None) -> list[LoadedCheckpoint]:
    """The checkpoints at these paths: files, run folders (their last one), or folders of runs, such as a sweep's.

    Raises:
        CheckpointError: if there is none at a path, or one cannot be used.
    """
    if ckpt is not None and not isinstance(ckpt, str | list):
        raise CheckpointError(f"ckpt={ckpt}: give a path, or a list of paths")
    found: dict[Path, Run | None] = {}
    for given in [ckpt] if isinstance(ckpt, str) else ckpt or []:
        path = Path(given)
        if path.is_dir():
            found |= _last_of_runs(path)
        else:
            folder = path.resolve().parent.parent
            found[path.resolve()] = Run(folder) if is_run(folder) else None
    checkpoints = []
    for path, run in found.items():
        checkpoint = load_checkpoint(path)
        config = checkpoint["config"]
        if not isinstance(config.get("codec"), dict) or not isinstance(config["codec"].get("sample_rate"), int):
            raise CheckpointError(f"{path} is no checkpoint of a codec: its configuration has none with a sample_rate")
        step, averaged = checkpoint.get("global_step", 0), bool(checkpoint.get("ema"))
        checkpoints.append(LoadedCheckpoint(path, config, step, run, averaged))
    return checkpoints


def _last_of_runs(folder: Path) -> dict[Path, Run]:
    """Last checkpoint -> run, of the runs below a folder; who has none is named in the log."""
    try:
        runs = discover([folder])
    except RunError as error:
        raise CheckpointError(str(error)) from error
    without = [run.folder for run in runs if not run.checkpoint.is_file()]
    if len(without) == len(runs):
        raise CheckpointError(f"no run in {folder} has got as far as a checkpoint")
    for run in without:
        log.warning("%s is left out: it has no checkpoint yet", run)
    return {run.checkpoint.resolve(): run for run in runs if run.checkpoint.is_file()}


def build_systems(
    checkpoints: list[LoadedCheckpoint],
    n_q: int | str | Iterable[int] | None = None,
    baselines: Mapping[str, System] | None = None,
    ema: bool = True,
    device: str | torch.device = "cpu",
) -> list[EvaluatedSystem]:
    """Every checkpoint with every number of codebooks, then the baselines.

    Args:
        n_q: one or several numbers of codebooks; None is all, ``curve`` is 1, 2, 4, ... and all.

    Raises:
        CheckpointError: if there is nobody, two have one name, or a codec has fewer codebooks.
    """
    load = lru_cache(maxsize=1)(lambda path: load_codec(path, ema)[0])  # of a curve, a codec is loaded once
    systems = []
    for checkpoint, family in zip(checkpoints, _names(checkpoints), strict=True):
        counts = [None] if n_q is None else codebooks(checkpoint.path, load(checkpoint.path).quantizer, n_q)
        weights = "averaged" if ema and checkpoint.averaged else "last"
        facts = {"checkpoint": checkpoint.path.name, "step": checkpoint.step, "weights": weights}
        for count in counts:
            name = f"{family} n_q={count}" if len(counts) > 1 or n_q is not None else family
            make = partial(_make, load, checkpoint.path, count, device)
            named = {"system": name, **facts}
            systems.append(EvaluatedSystem(name, make, family, named, checkpoint.run, first=count == counts[0]))
    for name, system in (baselines or {}).items():
        named = {"system": name}
        systems.append(EvaluatedSystem(name, partial(_itself, system), family_of(name), named, baseline=True))
    if not systems:
        raise CheckpointError("there is nothing to evaluate: give ckpt=PATH, baseline=NAME, or both")
    files = [file_name(one_system.name) for one_system in systems]
    for one_system, file in zip(systems, files, strict=True):
        if file in RESERVED or files.count(file) > 1:
            raise CheckpointError(f"{one_system.name!r} is no name of its own: rename it, or evaluate it by itself")
    return systems


def corpus_of(checkpoints: list[LoadedCheckpoint], sample_rate: int) -> Corpus:
    """The dataset that the first checkpoint was trained on, at ``sample_rate`` Hz; says which, since the checkpoint may
    be somebody else's.

    Raises:
        CheckpointError: if it is not one of this package, or would write outside of the user's cache folder.
        CorpusError: if it names none, as an imported codec does.
    """
    if checkpoints and "dataset" in checkpoints[0].config:
        config = checkpoints[0].config["dataset"]
        corpus = build({**config, "sample_rate": sample_rate}, DATA)
        told = " ".join(f"{key}={value}" for key, value in config.items() if not isinstance(value, dict))
        log.info("the dataset is that of %s (dataset= names another): %s", checkpoints[0].path, told)
        return corpus
    raise CorpusError("no checkpoint here was trained on a dataset of ours: give dataset=folder dataset.path=DIR")


def out_folder(checkpoints: list[LoadedCheckpoint]) -> Path:
    """Where a report of these goes by itself: beside the only one, or in the folder that all have in common."""
    if not checkpoints:
        return Path("runs", "eval")
    if len(checkpoints) == 1:
        return checkpoints[0].path.parent / f"eval_{checkpoints[0].path.stem}"
    return Path(os.path.commonpath([c.path.resolve().parent for c in checkpoints])) / "eval"


def codebooks(path: Path, quantizer: Quantizer, n_q: int | str | Iterable[int]) -> list[int | None]:
    """The numbers of codebooks that ``n_q`` asks of the codec at ``path``; [None] for a continuous one.

    Raises:
        CheckpointError: if the codec has fewer, or ``n_q`` is a word other than ``curve``.
    """
    if n_q == "curve" and not quantizer.n_q:
        return [None]
    if n_q == "curve":
        powers = [2**i for i in range(quantizer.n_q.bit_length()) if 2**i < quantizer.n_q]
        return [*powers, quantizer.n_q]
    counts = list(dict.fromkeys([n_q] if isinstance(n_q, int) else n_q)) if not isinstance(n_q, str | float) else []
    if not counts or not all(isinstance(count, int) for count in counts):
        raise CheckpointError(f"n_q={n_q}: give a number, a list such as [1,2,4], or curve")
    try:
        return [quantizer.check_n_q(count) for count in counts]
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _names(checkpoints: list[LoadedCheckpoint]) -> list[str]:
    """Runs by what differs between them, a single one by what it was called, other checkpoints by their file, with as
    much of their path as it takes."""
    if len(checkpoints) == 1 and checkpoints[0].run:
        return [str(checkpoints[0].config.get("name", checkpoints[0].path.stem))]
    runs = list({c.run.folder.resolve(): c.run for c in checkpoints if c.run}.values())
    of_run = dict(zip((run.folder.resolve() for run in runs), names(runs), strict=True)) if runs else {}
    of_file = unique_ends([c.path.with_suffix("") for c in checkpoints])
    short = [of_run[c.run.folder.resolve()] if c.run else file for c, file in zip(checkpoints, of_file, strict=True)]
    # several checkpoints of one run: their files tell them apart
    return [
        f"{s} {c.path.stem}" if c.run and short.count(s) > 1 else s for s, c in zip(short, checkpoints, strict=True)
    ]


def _make(load: Callable[[Path], Any], path: Path, n_q: int | None, device: str | torch.device) -> CodecSystem:
    return CodecSystem(load(path), n_q, device)


def _itself(system: System) -> System:
    return system
