"""A corpus cut into units of work, for programs that process all of it (packing, extraction of tokens and latents). A
unit depends on the corpus alone: any process can process any unit, in any order, repeatedly."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording
from codec.data.hf_stream import HubStream
from codec.data.indexed import IndexedCorpus
from codec.data.shard_corpus import Recordings, ShardCorpus
from codec.utils.atomic import write_atomic

PLAN = "plan.json"  # identifies the corpus and the options of a folder of units


class WorkUnits(ABC):
    """A corpus divided into named units."""

    names: list[str]
    splits: dict[str, list[int]]  # train, val and test: the numbers of their units, in order
    digest: str  # equal digests mean equal recordings
    size: int | None = None  # number of recordings; None if unknown
    bad: tuple[tuple[str, str], ...] = ()  # (file, reason) of recordings found unreadable in advance
    held_out_by: str  # see `Corpus`

    def recordings(self, unit: int) -> Iterator[Recording | AudioError]:
        """Recordings of a unit in order; an AudioError stands for an unreadable one."""
        for read in self._readers(unit):
            try:
                yield read()
            except AudioError as error:
                yield error

    @abstractmethod
    def _readers(self, unit: int) -> Iterator[Callable[[], Recording]]: ...


def cut(corpus: Corpus, seconds: float) -> WorkUnits:
    """Cut a corpus into units of about `seconds`, or into its shards or files. Raises CorpusError for a mix."""
    if isinstance(corpus, IndexedCorpus):
        return IndexedUnits(corpus, seconds)
    if isinstance(corpus, ShardCorpus):
        return ShardUnits(corpus)
    if isinstance(corpus, HubStream):
        return StreamUnits(corpus)
    raise CorpusError(f"a {type(corpus).__name__} cannot be cut into units: process the corpora in it one by one.")


def check_plan(folder: Path, plan: dict) -> None:
    """Record in plan.json what a folder is for. Raises CorpusError if it is for something else."""
    content = json.dumps(plan, sort_keys=True).encode() + b"\n"
    path = folder / PLAN
    if not path.is_file():
        write_atomic(path, content)
    if path.read_bytes() != content:
        raise CorpusError(f"{folder} holds work on another corpus, or with other options: give an empty folder.")


class IndexedUnits(WorkUnits):
    """Training recordings in a fixed random order, so that a unit is a fair sample; held-out ones in their order."""

    def __init__(self, corpus: IndexedCorpus, seconds: float):
        self.corpus, self.size, self.bad = corpus, corpus.size, tuple(corpus.bad)
        self.held_out_by = corpus.held_out_by
        self.names, self.numbers, self.splits = [], [], {}
        train, val, test = (corpus.splits[split] for split in ("train", "val", "test"))
        parts = {"train": train[np.random.default_rng(0).permutation(len(train))]}
        same = np.array_equal(val, test)
        parts |= {"held": val} if same else {"val": val, "test": test}
        digest = hashlib.sha256()
        for part, numbers in parts.items():
            starts = np.cumsum(corpus.lengths[numbers]) - corpus.lengths[numbers]
            unit = starts // max(1, round(seconds * corpus.sample_rate))
            pieces = np.split(numbers, np.flatnonzero(np.diff(unit)) + 1) if len(numbers) else []
            self.splits[part] = list(range(len(self.names), len(self.names) + len(pieces)))
            self.names += [f"{part}-{i:06d}" for i in range(len(pieces))]
            self.numbers += pieces
            digest.update(f"{[len(piece) for piece in pieces]}".encode())
            digest.update(f"{part} {corpus.sample_rate} {numbers.tolist()} {corpus.lengths[numbers].tolist()}".encode())
        for fact in corpus.identity():
            digest.update(repr(fact).encode())
        self.digest = digest.hexdigest()
        if same:
            self.splits["val"] = self.splits["test"] = self.splits.pop("held")

    def _readers(self, unit: int) -> Iterator[Callable[[], Recording]]:
        return (partial(self.corpus.recording, i) for i in self.numbers[unit].tolist())


class ShardUnits(WorkUnits):
    """One unit per shard."""

    def __init__(self, corpus: ShardCorpus):
        self.corpus, self.size, self.splits = corpus, corpus.size, corpus.index.splits
        self.held_out_by = corpus.held_out_by
        self.names = [shard.name for shard in corpus.index.shards]
        self.digest = hashlib.sha256(corpus.index.dump()).hexdigest()

    def _readers(self, unit: int) -> Iterator[Callable[[], Recording]]:
        recordings = Recordings(self.corpus.folder, [self.corpus.index.shards[unit]], self.corpus.sample_rate)
        return (partial(recordings.recording, i) for i in range(len(recordings)))


class StreamUnits(WorkUnits):
    """One unit per file of the dataset, in order, after the units of the held-out recordings."""

    def __init__(self, corpus: HubStream):
        self.corpus = corpus
        self.bad, self.skip, self.held_out_by = tuple(corpus.held_out.bad), corpus.held_out.skip, corpus.held_out_by
        self.names = ["val-000000", "test-000000"] + [f"train-{shard:06d}" for shard in range(corpus.shards)]
        self.splits = {"train": list(range(2, len(self.names))), "val": [0], "test": [1]}
        identity = self.names, corpus.name, corpus.part, corpus.held, sorted(self.skip.items())
        self.digest = hashlib.sha256(repr(identity).encode()).hexdigest()

    def recordings(self, unit: int) -> Iterator[Recording | AudioError]:
        held = self.corpus.held_speakers if unit > 1 else ()  # training has no recordings by them
        return (one for one in super().recordings(unit) if getattr(one, "speaker", None) not in held)

    def _readers(self, unit: int) -> Iterator[Callable[[], Recording]]:
        if unit < 2:
            held = self.corpus.part_of(("val", "test")[unit])
            return (partial(lambda recording: recording, recording) for recording in held)
        rows = self.corpus.rows(unit - 2, self.skip.get(unit - 2, 0))
        return (partial(self.corpus.recording, content, f"{unit - 2}/{row}") for row, content in rows)
