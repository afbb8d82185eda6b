"""The contract of the data part: a corpus gives training crops and held-out clips.

An item is a plain dict:
    wav      float32 tensor [1, T] in [-1, 1], mono, at the codec's sample rate
    speaker  str, "" if unknown
    text     str, "" if unknown
    phones   list of (symbol, start in seconds from the first sample of `wav`), [] if unknown
    file     str, the name under which the recording is reported
    skipped  list of (file, reason): recordings that could not be read on the way to this one (crops only)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from codec.data.audio import AudioError
from codec.utils.errors import UserError

TRIES = 32  # unreadable recordings in a row before a draw gives up


class CorpusError(UserError, RuntimeError):
    """The corpus as a whole cannot be used; the message is one sentence that says why and what to do."""

    def __init__(self, message: str):
        # A DataLoader re-raises a worker's error with the whole traceback as its message: keep the sentence.
        super().__init__(" ".join(message.rpartition("CorpusError: ")[2].split()))


@dataclass(frozen=True)
class Recording:
    """One recording before it is read. `phones` is "symbol@seconds ..." from its first sample."""

    source: str | Path | bytes
    name: str
    speaker: str = ""
    text: str = ""
    phones: str = ""

    def item(self, wav: np.ndarray, start: int, samples: int, sample_rate: int) -> dict:
        """The item for `wav` [T], which begins at sample `start`; zeros up to `samples` follow."""
        padded = torch.zeros(1, max(samples, len(wav)))
        padded[0, : len(wav)] = torch.from_numpy(wav)
        phones = phones_within(self.phones, start / sample_rate, len(wav) / sample_rate)
        return {
            "wav": padded,
            "speaker": self.speaker,
            "text": self.text,
            "phones": phones,
            "file": self.name,
        }


def phones_within(phones: str, start: float, seconds: float) -> list[tuple[str, float]]:
    """Phones that begin in the window; the one that is sounding when the window opens is given start 0."""
    found: list[tuple[str, float]] = []
    for phone in phones.split():
        symbol, _, time = phone.rpartition("@")
        begin = float(time) - start
        if begin <= 0:
            found = [(symbol, 0.0)]
        elif begin < seconds:
            found.append((symbol, begin))
    return found


class Corpus(ABC):
    """A set of recordings, part of it held out.

    `sample_rate` (Hz) is that of the items. `size` is the number of recordings, None if unknown (a stream).
    `bad` lists the (file, reason) of those found unreadable before any item was asked for.
    """

    sample_rate: int
    size: int | None = None
    bad: Sequence[tuple[str, str]] = ()

    @abstractmethod
    def crops(self, samples: int, seed: int) -> Dataset:
        """Endless training crops of `samples` samples.

        Either map-style, where `ds[n]` is defined for every draw number n >= 0 and depends on (seed, n)
        alone, or a `Stream`. An unreadable recording is replaced by another one and listed under the item's
        "skipped".
        """

    @abstractmethod
    def clips(self, split: str, max_seconds: float | None = None) -> Sequence[dict]:
        """Held-out recordings from their beginning, cut to `max_seconds`, in a fixed order.

        `split` is "val" or "test"; a corpus with one held-out set gives the same for both. Reading an item
        raises `AudioError` if its file is broken: `readable` goes on with the next.
        """


class Stream(IterableDataset):
    """Endless items in an order that cannot be addressed by draw number.

    Iterating again goes on where the last iteration stopped.
    """

    rank: int = 0
    world: int = 1
    start: int = 0
    _items: Iterator[dict] | None = None

    @abstractmethod
    def items(self) -> Iterator[dict]:
        """The items of this reader, for ever."""

    def place(self, rank: int, world: int, start: int) -> None:
        """This is rank `rank` of `world`, after `start` draws in an earlier run: part of the seed."""
        self.rank, self.world, self.start = rank, world, start

    def part(self) -> tuple[int, int]:
        """(index, count) of this reader among all workers of all ranks."""
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        return self.rank * count + index, self.world * count

    def __iter__(self) -> Iterator[dict]:
        if self._items is None:
            self._items = self.items()
        return self._items


def readable(clips: Sequence[dict], skipped: list[tuple[str, str]], limit: int | None = None) -> Iterator[dict]:
    """The first `limit` clips that can be read; (file, reason) of the others met go to `skipped`."""
    given = 0
    for i in range(len(clips)):
        if limit is not None and given >= limit:
            return
        try:
            item = clips[i]
        except AudioError as error:
            skipped.append((error.file, error.reason))
        else:
            given += 1
            yield item
