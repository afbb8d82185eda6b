"""Corpus that streams a dataset of the Hugging Face Hub during training. Sharding and shuffling are its own: those of
`datasets` lose shards, drop the shuffle buffer, or let every rank read everything if the number of files is no multiple
of the ranks."""

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording, Stream
from codec.data.filling import filled
from codec.data.retry import reason, retried

if TYPE_CHECKING:  # `datasets` takes seconds to import
    from datasets import IterableDataset

log = logging.getLogger(__name__)

RECENT = 64  # recordings of a reader of which a crop is kept, to fill crops of the same speakers
SHUFFLE = 256  # crops in the shuffle buffer of a reader
CROPS = 8  # of one recording in one pass, at most
HOPELESS = 1000  # unreadable recordings in a row
TIMEOUT = 30.0  # seconds without a byte from the Hub


ToRecording = Callable[[dict[str, Any], str], Recording]
"""(row, place) -> recording"""


class HeldOut(NamedTuple):
    """Held-out recordings, (name, reason) of unreadable ones, and {shard: number of first rows that training skips}."""

    recordings: list[Recording]
    bad: list[tuple[str, str]]
    skip: dict[int, int]


class HubStream(Corpus):
    """Streamed corpus of the rows of `dataset`, converted by `recording(row, place)`. The first `held` readable
    recordings are test and val in turn; neither they nor others by their speakers are trained on. `part` identifies
    configuration, split and columns."""

    def __init__(
        self, dataset: "IterableDataset", recording: ToRecording, sample_rate: int, name: str, held: int, part: str = ""
    ):
        self.dataset, self.recording, self.sample_rate = dataset, recording, sample_rate
        self.name, self.held, self.part = name, held, part
        self.shards = dataset.num_shards

    def crops(self, samples: int, seed: int) -> Stream:
        return StreamCrops(self, samples, seed)

    def clips(self, split: str, max_seconds: float | None = None) -> Sequence[dict]:
        samples = None if max_seconds is None else int(max_seconds * self.sample_rate)
        recordings = self.part_of(split)
        return [r.item(r.read(self.sample_rate, 0, samples), 0, self.sample_rate) for r in recordings]

    def part_of(self, split: str) -> list[Recording]:
        """The held-out recordings of "val" or "test"."""
        recordings = self.held_out.recordings
        return recordings[1::2] if split == "val" and self.held > 1 else recordings[::2]

    @cached_property
    def held_speakers(self) -> set[str]:
        return {recording.speaker for recording in self.held_out.recordings} - {""}

    @property
    def held_out_by(self) -> str:
        return "speaker" if all(recording.speaker for recording in self.held_out.recordings) else "file"

    @property
    def bad(self) -> Sequence[tuple[str, str]]:
        return self.held_out.bad

    def rows(self, shard: int, first: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row) of one shard in order, from row `first`; reopened at the current row after network errors."""
        batches = None

        def read() -> dict[str, list] | None:
            nonlocal batches
            try:
                if batches is None:
                    limit_timeouts()  # a worker process, and a connection after an error, have a client of their own
                    # `iter` by batches does not split the rows over DataLoader workers, unlike `__iter__`.
                    part = self.dataset.shard(num_shards=self.shards, index=shard)
                    batches = itertools.islice(part.iter(batch_size=1), row, None)
                return next(batches, None)
            except Exception:
                batches = None
                raise

        for row in itertools.count(first):
            try:
                batch = retried(read, f"{self.name}, file {shard}, row {row}")
            except Exception as error:  # the network's and the parser's
                raise CorpusError(f"{self.name} stops at row {row} of file {shard}: {reason(error)}.") from None
            if batch is None:
                return
            yield row, {column: values[0] for column, values in batch.items()}

    @cached_property
    def held_out(self) -> HeldOut:
        recordings, bad, skip = found = HeldOut([], [], {})
        rows = ((shard, *row) for shard in range(self.shards) for row in self.rows(shard))
        for shard, row, content in rows:
            if len(recordings) == self.held or (len(bad) >= HOPELESS and not recordings):
                break
            skip[shard] = row + 1
            try:
                recording = self.recording(content, f"{shard}/{row}")
                recording.read(self.sample_rate)
                recordings.append(recording)
            except AudioError as error:
                bad.append((error.file, error.reason))
        if not recordings:
            example = f" ({' '.join(bad[0])})" if bad else ""
            raise CorpusError(f"none of the first {len(bad)} recordings of {self.name} can be read{example}.")
        if len(recordings) < self.held:
            raise CorpusError(
                f"{self.name} has {len(recordings)} readable recordings: hold out fewer than {self.held}."
            )
        if self.held == 1:
            log.warning("validation and test are the same recording: raise dataset.held")
        return found


class StreamCrops(Stream):
    """Crops of a stream, shuffled in a bounded buffer, at most CROPS per recording. In each pass, files are assigned
    anew to readers (workers of all ranks); if there are fewer files than readers, several share a file row by row."""

    def __init__(self, corpus: HubStream, samples: int, seed: int):
        self.corpus, self.samples, self.seed = corpus, samples, seed
        self.skip, self.held_speakers = corpus.held_out.skip, corpus.held_speakers  # computed before there are workers

    def items(self) -> Iterator[dict]:
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
        rate, failures, held = self.corpus.sample_rate, 0, 0
        recent: deque[dict] = deque(maxlen=RECENT)
        for content, place in self._passes():
            try:
                recording = self.corpus.recording(content, place)
                held = held + 1 if recording.speaker in self.held_speakers else 0
                if held == 10 * HOPELESS:
                    raise CorpusError(
                        f"{held:,} recordings in a row are by held-out speakers: hold out fewer (dataset.held), or by "
                        "recording (dataset.speaker_column=null)."
                    )
                if held:
                    continue
                wav = recording.read(rate)
            except AudioError as error:
                skipped.append((error.file, error.reason))
                failures += 1
                if failures == HOPELESS:
                    raise CorpusError(f"{HOPELESS} recordings in a row cannot be read (last: {error}).") from None
                continue
            failures = 0
            last = max(0, len(wav) - self.samples)
            count = min(CROPS, -(-len(wav) // self.samples))
            for k in range(count):
                start = int((k + rng.random()) / count * (last + 1))
                item = recording.item(wav[start : start + self.samples], start, rate)
                known = [one for one in recent if one["speaker"] == item["speaker"] != ""]
                yield filled(item, known, self.samples, rate)
            recent.append(item)

    def _passes(self) -> Iterator[tuple[dict[str, Any], str]]:
        """(row, place) of this reader, pass after pass."""
        empty = 0
        for epoch in itertools.count():
            empty += 1
            for found in self.rows(epoch):
                empty = 0
                yield found
            # With few files, most of them held out, this reader may get rows in a later pass.
            if empty > 10 * self.part()[1] + self.corpus.shards:
                raise CorpusError(f"{self.corpus.name} has nothing left for training: hold out fewer recordings.")

    def rows(self, epoch: int) -> Iterator[tuple[dict[str, Any], str]]:
        """(row, place) of this reader's share of one pass; the shares of all readers partition the rows."""
        part, parts = self.part()
        shards = self.corpus.shards
        order = np.random.default_rng((self.seed, 5, self.start, epoch)).permutation(shards)
        if shards >= parts:
            mine, sharing, turn = order[part::parts], 1, 0
        else:
            mine = order[[part % shards]]
            sharing, turn = len(range(part % shards, parts, shards)), part // shards
        for shard in map(int, mine):
            for row, content in self.corpus.rows(shard, self.skip.get(shard, 0)):
                if (row + epoch) % sharing == turn:
                    yield content, f"{shard}/{row}"


def limit_timeouts() -> None:
    """Add a timeout to requests of `huggingface_hub`'s present client: listings have none and can block forever."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks
    if _limit_timeout not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _limit_timeout]}


def _limit_timeout(request: Any) -> None:
    timeouts = request.extensions["timeout"]
    request.extensions["timeout"] = {kind: min(seconds or TIMEOUT, TIMEOUT) for kind, seconds in timeouts.items()}
