"""A corpus cut into units of work, for programs that go once through all of it: packing, extracting tokens.

What a unit holds hangs on the corpus alone, not on who does it: any process can do any unit, in any order, again.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np

from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording
from codec.data.hf_stream import HubStream
from codec.data.indexed import IndexedCorpus
from codec.data.shard_corpus import Recordings, ShardCorpus


class WorkUnits(ABC):
    """`names` are those of the units, `splits` maps train, val and test to the numbers of their units in order.

    `digest` says what is in them: two with the same digest have the same recordings. `size` is the number of
    recordings, None if unknown.
    """

    names: list[str]
    splits: dict[str, list[int]]
    digest: str
    size: int | None
    bad: tuple[tuple[str, str], ...] = ()

    @abstractmethod
    def recordings(self, unit: int) -> Iterator[Recording | AudioError]:
        """The recordings of a unit in order; an AudioError stands for one that cannot be had."""


def cut(corpus: Corpus, seconds: float) -> WorkUnits:
    """The units of a corpus, of about `seconds` where it can be cut anywhere.

    Raises CorpusError for a mix: its parts are to be taken one by one.
    """
    if isinstance(corpus, IndexedCorpus):
        return IndexedUnits(corpus, seconds)
    if isinstance(corpus, ShardCorpus):
        return ShardUnits(corpus)
    if isinstance(corpus, HubStream):
        return StreamUnits(corpus)
    raise CorpusError(f"a {type(corpus).__name__} cannot be taken as a whole: take the corpora in it one by one.")


class IndexedUnits(WorkUnits):
    """Training recordings in a fixed random order, so that a unit is a fair sample; held-out ones in theirs."""

    def __init__(self, corpus: IndexedCorpus, seconds: float):
        self.corpus = corpus
        self.names, self._numbers, digest = [], [], hashlib.sha256()
        train = corpus.splits["train"]
        parts = {"train": train[np.random.default_rng(0).permutation(len(train))]} | _held(corpus.splits)
        made: dict[str, list[int]] = {}
        for part, numbers in parts.items():
            begins = np.cumsum(corpus.lengths[numbers]) - corpus.lengths[numbers]
            which = begins // max(1, round(seconds * corpus.sample_rate))
            pieces = np.split(numbers, np.flatnonzero(np.diff(which)) + 1) if len(numbers) else []
            made[part] = list(range(len(self.names), len(self.names) + len(pieces)))
            self.names += [f"{part}-{i:06d}" for i in range(len(pieces))]
            self._numbers += pieces
            digest.update(f"{[len(piece) for piece in pieces]}".encode())
            digest.update(f"{part} {corpus.sample_rate} {numbers.tolist()} {corpus.lengths[numbers].tolist()}".encode())
        for fact in corpus.identity():
            digest.update(repr(fact).encode())
        self.splits = _splits(made)
        self.digest = digest.hexdigest()
        self.size = corpus.size
        self.bad = tuple(corpus.bad)

    def recordings(self, unit: int) -> Iterator[Recording | AudioError]:
        for i in self._numbers[unit].tolist():
            try:
                yield self.corpus.recording(i)
            except AudioError as error:
                yield error


class ShardUnits(WorkUnits):
    """A unit is a shard."""

    def __init__(self, corpus: ShardCorpus):
        self.corpus = corpus
        self.names = [shard.name for shard in corpus.index.shards]
        self.splits = corpus.index.splits
        self.digest = hashlib.sha256(corpus.index.dump()).hexdigest()
        self.size = corpus.size

    def recordings(self, unit: int) -> Iterator[Recording | AudioError]:
        part = Recordings(self.corpus.store, [self.corpus.index.shards[unit]], self.corpus.sample_rate)
        for i in range(len(part)):
            try:
                yield part.recording(i)
            except AudioError as error:
                yield error


class StreamUnits(WorkUnits):
    """A unit is a file of the dataset, in the dataset's own order; the held-out recordings are one of their own."""

    def __init__(self, corpus: HubStream):
        self.corpus = corpus
        held, bad, self.skip = corpus.held_out
        self.held = held
        self.bad = tuple(bad)
        self.names = ["held-000000"] + [f"train-{shard:06d}" for shard in range(corpus.shards)]
        self.splits = {"train": list(range(1, len(self.names))), "val": [0], "test": [0]}
        self.digest = hashlib.sha256(
            repr((corpus.name, corpus.part, corpus.shards, corpus.held, sorted(self.skip.items()))).encode()
        ).hexdigest()
        self.size = None

    def recordings(self, unit: int) -> Iterator[Recording | AudioError]:
        if unit == 0:
            yield from self.held
            return
        for row, content in self.corpus.rows(unit - 1, self.skip.get(unit - 1, 0)):
            try:
                yield self.corpus.recording(content, f"{unit - 1}/{row}")
            except AudioError as error:
                yield error


def _held(splits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The held-out part once, where it serves as val and test alike."""
    if np.array_equal(splits["val"], splits["test"]):
        return {"held": splits["val"]}
    return {"val": splits["val"], "test": splits["test"]}


def _splits(made: dict[str, list[int]]) -> dict[str, list[int]]:
    return {
        "train": made["train"],
        "val": made.get("held", made.get("val")),
        "test": made.get("held", made.get("test")),
    }
