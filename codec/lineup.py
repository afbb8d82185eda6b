"""Who takes part in an evaluation: codecs of ours, with so many codebooks each, and baselines."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from codec.checkpoint import CheckpointError, load_checkpoint, load_codec
from codec.data.base import Corpus, CorpusError
from codec.page.base import Entry
from codec.quantizers.base import Quantizer
from codec.report import Report
from codec.runs import Run, RunError, discover, names
from codec.systems.base import System
from codec.systems.codec import CodecSystem
from codec.untrusted import DATA, build

log = logging.getLogger("eval")


@dataclass
class Candidate:
    """A checkpoint, the configuration inside it, and its run, where it lies in a run folder."""

    path: Path
    config: dict[str, Any]
    step: int
    run: Run | None

    @property
    def sample_rate(self) -> int:
        return self.config["codec"]["sample_rate"]


@dataclass
class Contestant:
    """One system of an evaluation.

    name: unique.
    make: builds it, when it is its turn.
    family: the same for systems that differ in bitrate alone; of baselines, the name without its number.
    """

    name: str
    make: Callable[[], System]
    family: str
    facts: dict[str, Any] = field(default_factory=dict)
    run: Run | None = None
    baseline: bool = False
    first: bool = True  # of its family

    def entry(self, report: Report, folder: Path, timing: dict[str, Any]) -> Entry:
        """What a page shows of it."""
        command = self.run.command if self.run else ""
        curves = self.run.curves() if self.run and self.first else None
        return Entry(self.name, report, folder, self.family, self.baseline, command, timing, curves)


def find(ckpt: str | Iterable[str] | None) -> list[Candidate]:
    """The checkpoints at these paths: files, run folders (their last one), or folders of runs, such as a sweep's.

    Raises:
        CheckpointError: if there is none at a path, or one cannot be used.
    """
    found: dict[Path, Run | None] = {}
    for path in [Path(ckpt)] if isinstance(ckpt, str) else map(Path, ckpt or []):
        if not path.is_dir():
            folder = path.parent.parent
            found[path] = Run(folder) if (folder / "config.yaml").is_file() else None
            continue
        try:
            last = {run.checkpoint: run for run in discover([path])}
        except RunError as error:
            raise CheckpointError(str(error)) from error
        there = {checkpoint: run for checkpoint, run in last.items() if checkpoint.is_file()}
        if not there:
            raise CheckpointError(f"no run in {path} has got as far as a checkpoint")
        found |= there
    candidates = []
    for path, run in found.items():
        checkpoint = load_checkpoint(path)
        config = checkpoint["config"]
        if not isinstance(config.get("codec"), dict) or not isinstance(config["codec"].get("sample_rate"), int):
            raise CheckpointError(f"{path} is no checkpoint of a codec: its configuration has none with a sample_rate")
        candidates.append(Candidate(path, config, checkpoint.get("global_step", 0), run))
    return candidates


def line_up(
    candidates: list[Candidate],
    n_q: int | str | Iterable[int] | None = None,
    baselines: Mapping[str, System] | None = None,
    ema: bool = True,
    device: str | torch.device = "cpu",
) -> list[Contestant]:
    """Every candidate with every number of codebooks, then the baselines.

    Args:
        n_q: one or several numbers of codebooks; None is all, ``curve`` is 1, 2, 4, ... and all.

    Raises:
        CheckpointError: if there is nobody, two have one name, or a codec has fewer codebooks.
    """
    load = lru_cache(maxsize=1)(lambda path: load_codec(path, ema)[0])  # of a curve, a codec is loaded once
    contestants = []
    for candidate, family in zip(candidates, _names(candidates), strict=True):
        counts = [None] if n_q is None else codebooks(candidate.path, load(candidate.path).quantizer, n_q)
        facts = {"checkpoint": candidate.path.name, "step": candidate.step}
        for count in counts:
            name = f"{family} n_q={count}" if len(counts) > 1 or n_q is not None else family
            make = partial(_make, load, candidate.path, count, device)
            named = {"system": name, **facts}
            contestants.append(Contestant(name, make, family, named, candidate.run, first=count == counts[0]))
    for name, system in (baselines or {}).items():
        family = re.sub(r"_(nq)?\d+$", "", name)
        contestants.append(Contestant(name, partial(_itself, system), family, {"system": name}, baseline=True))
    if not contestants:
        raise CheckpointError("there is nothing to evaluate: give ckpt=PATH, baseline=NAME, or both")
    taken = [contestant.name for contestant in contestants]
    if twice := sorted({name for name in taken if taken.count(name) > 1}):
        raise CheckpointError(f"two systems are named {twice[0]!r}: evaluate them one by one")
    return contestants


def corpus_of(candidates: list[Candidate]) -> Corpus:
    """The dataset that the first candidate was trained on; says which, since the checkpoint may be somebody else's.

    Raises:
        CheckpointError: if it is not one of this package, or would write outside of the user's cache folder.
        CorpusError: if it names none, as an imported codec does.
    """
    if candidates and "dataset" in candidates[0].config:
        config = candidates[0].config["dataset"]
        corpus = build(config, DATA)
        told = " ".join(f"{key}={value}" for key, value in config.items() if not isinstance(value, dict))
        log.info("the dataset is that of %s (dataset= names another): %s", candidates[0].path, told)
        return corpus
    raise CorpusError("no checkpoint here was trained on a dataset of ours: give dataset=folder dataset.path=DIR")


def out_folder(candidates: list[Candidate]) -> Path:
    """Where a report of these goes by itself: beside the only one, or in the folder that all have in common."""
    if not candidates:
        return Path("runs", "eval")
    if len(candidates) == 1:
        return candidates[0].path.parent / f"eval_{candidates[0].path.stem}"
    return Path(os.path.commonpath([c.path.resolve().parent for c in candidates])) / "eval"


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
    if isinstance(n_q, str):
        raise CheckpointError(f"n_q={n_q}: give a number, a list such as [1,2,4], or curve")
    try:
        return [quantizer.check_n_q(count) for count in ([n_q] if isinstance(n_q, int) else n_q)]
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _names(candidates: list[Candidate]) -> list[str]:
    """Runs by what differs between them, a single one by what it was called, other checkpoints by their file."""
    if len(candidates) == 1:
        return [
            str(candidates[0].config.get("name", candidates[0].path.stem))
            if candidates[0].run
            else candidates[0].path.stem
        ]
    runs = [candidate.run for candidate in candidates if candidate.run]
    of_run = dict(zip((run.folder for run in runs), names(runs), strict=True)) if runs else {}
    short = [of_run[c.run.folder] if c.run else c.path.stem for c in candidates]
    # several checkpoints of one run: their files tell them apart
    return [f"{s} {c.path.stem}" if c.run and short.count(s) > 1 else s for s, c in zip(short, candidates, strict=True)]


def _make(load: Callable[[Path], Any], path: Path, n_q: int | None, device: str | torch.device) -> CodecSystem:
    return CodecSystem(load(path), n_q, device)


def _itself(system: System) -> System:
    return system
