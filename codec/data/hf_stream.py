"""A dataset of the Hugging Face Hub that is read while training.

Order, sharding and shuffling are ours and use of the library only "give me the rows of one file, in order":
its own ways lose shards, drop the buffer, or let every rank read everything when files do not divide by
ranks.
"""

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import fsspec.asyn
import numpy as np
from datasets import IterableDataset

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording, Stream
from codec.data.hub_retry import RETRIES, pause, reason

SHUFFLE = 256  # crops among which a reader draws
CROPS = 8  # at most, of one recording in one pass
HOPELESS = 1000  # unreadable recordings in a row

log = logging.getLogger(__name__)


class HubStream(Corpus):
    """The rows of `dataset`, each made a recording by `recording(row, place)`.

    `part` says what of the dataset `name` that is: its configuration, split and columns. The first `held` readable
    recordings, in the dataset's own order, are val and test alike; training skips them.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        recording: Callable[[dict[str, Any], str], Recording],
        sample_rate: int,
        name: str,
        held: int,
        part: str = "",
    ):
        self.part = part
        self.dataset = dataset
        self.recording = recording
        self.sample_rate = sample_rate
        self.name = name
        self.held = held
        self.shards = dataset.num_shards

    def crops(self, samples: int, seed: int) -> Stream:
        return StreamCrops(self, samples, seed)

    def clips(self, split: str, max_seconds: float | None = None) -> Sequence[dict]:
        samples = None if max_seconds is None else int(max_seconds * self.sample_rate)
        recordings = self._start[0]
        wavs = [audio.read(r.source, self.sample_rate, 0, samples, r.name) for r in recordings]
        return [r.item(wav, 0, 0, self.sample_rate) for r, wav in zip(recordings, wavs, strict=True)]

    @property
    def bad(self) -> Sequence[tuple[str, str]]:
        return self._start[1]

    def held_out(self) -> tuple[list[Recording], list[tuple[str, str]], dict[int, int]]:
        """The held-out recordings, the unreadable ones among them, and {shard: rows that training skips}."""
        return self._start

    def rows(self, shard: int, first: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) of one shard in order, from row `first`; opens it again when the network fails."""
        row, failures = first, 0
        while True:
            try:
                # `iter` by batches does not split the rows over DataLoader workers, which `__iter__` does.
                batches = self.dataset.shard(num_shards=self.shards, index=shard).iter(batch_size=1)
                for batch in itertools.islice(batches, row, None):
                    yield row, {column: values[0] for column, values in batch.items()}
                    row, failures = row + 1, 0
                return
            except Exception as error:  # whatever the network and the parser raise
                failures += 1
                if failures > RETRIES:
                    raise CorpusError(f"{self.name} stops at row {row} of file {shard}: {reason(error)}.") from None
                log.warning("%s, file %d, row %d: %s; trying again", self.name, shard, row, reason(error))
                pause(error, failures)

    @cached_property
    def _start(self) -> tuple[list[Recording], list[tuple[str, str]], dict[int, int]]:
        """The held-out recordings, the unreadable ones among them, and {shard: rows that training skips}."""
        recordings: list[Recording] = []
        bad: list[tuple[str, str]] = []
        skip: dict[int, int] = {}
        for shard in range(self.shards):
            for row, content in self.rows(shard):
                if len(recordings) == self.held or (len(bad) >= HOPELESS and not recordings):
                    break
                skip[shard] = row + 1
                try:
                    recording = self.recording(content, f"{shard}/{row}")
                    audio.read(recording.source, self.sample_rate, 0, None, recording.name)
                    recordings.append(recording)
                except AudioError as error:
                    bad.append((error.file, error.reason))
            else:
                continue
            break
        if not recordings:
            example = f" ({bad[0][0]} {bad[0][1]})" if bad else ""
            raise CorpusError(f"none of the first {len(bad)} recordings of {self.name} can be read{example}.")
        if len(recordings) < self.held:
            raise CorpusError(
                f"{self.name} has {len(recordings)} readable recordings: hold out fewer than {self.held}."
            )
        return recordings, bad, skip


class StreamCrops(Stream):
    """Crops of a stream, shuffled within a bounded buffer.

    Whole files belong to one reader (a worker of a rank) for a pass, dealt out anew for the next; with fewer
    files than readers, several share a file row by row. A recording gives as many crops as fit, CROPS at
    most.
    """

    def __init__(self, corpus: HubStream, samples: int, seed: int):
        self.corpus = corpus
        self.samples = samples
        self.seed = seed
        self.held = corpus._start[2]  # looked up once, before there are workers

    def items(self) -> Iterator[dict]:
        fsspec.asyn.reset_lock()  # a forked worker inherits the lock, maybe taken
        rng = np.random.default_rng((self.seed, 4, self.start, self.part()[0]))
        skipped: list[tuple[str, str]] = []
        buffer: list[dict] = []
        for item in self._crops(rng, skipped):
            if len(buffer) < SHUFFLE:
                buffer.append(item)
                continue
            at = int(rng.integers(SHUFFLE))
            buffer[at], item = item, buffer[at]
            yield item | {"skipped": skipped[:]}
            skipped.clear()

    def _crops(self, rng: np.random.Generator, skipped: list[tuple[str, str]]) -> Iterator[dict]:
        rate, failures = self.corpus.sample_rate, 0
        for content, place in self._rows():
            try:
                recording = self.corpus.recording(content, place)
                wav = audio.read(recording.source, rate, 0, None, recording.name)
            except AudioError as error:
                skipped.append((error.file, error.reason))
                failures += 1
                if failures == HOPELESS:
                    raise CorpusError(f"{HOPELESS} recordings in a row cannot be read (last: {error}).") from None
                continue
            failures = 0
            room = max(0, len(wav) - self.samples)
            count = min(CROPS, -(-len(wav) // self.samples))
            for k in range(count):
                start = int((k + rng.random()) / count * (room + 1))
                yield recording.item(wav[start : start + self.samples], start, self.samples, rate)

    def _rows(self) -> Iterator[tuple[dict[str, Any], str]]:
        """(row, place) of this reader, pass after pass."""
        empty = 0
        for epoch in itertools.count():
            empty += 1
            for found in self.rows(epoch):
                empty = 0
                yield found
            # Few files, most of them held out: another pass may deal this reader something.
            if empty > 10 * self.part()[1] + self.corpus.shards:
                raise CorpusError(f"{self.corpus.name} has nothing left for training: hold out fewer recordings.")

    def rows(self, epoch: int) -> Iterator[tuple[dict[str, Any], str]]:
        """(row, place) of this reader's share of one pass; the shares of all readers are the whole, once."""
        part, parts = self.part()
        shards = self.corpus.shards
        order = np.random.default_rng((self.seed, 5, self.start, epoch)).permutation(shards)
        if shards >= parts:
            mine, sharing, turn = order[part::parts], 1, 0
        else:
            mine = order[[part % shards]]
            sharing, turn = len(range(part % shards, parts, shards)), part // shards
        for shard in map(int, mine):
            for row, content in self.corpus.rows(shard, self.held.get(shard, 0)):
                if (row + epoch) % sharing == turn:
                    yield content, f"{shard}/{row}"
