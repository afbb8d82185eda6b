"""Interface of speech corpora: endless training crops and held-out clips.

An item is a dict:
    wav      float32 tensor [1, T] in [-1, 1], mono, at the codec's sample rate
    speaker  str, "" if unknown
    text     str, "" if unknown
    phones   list of (symbol, start in seconds from the first sample of `wav`), [] if unknown
    file     str, the name of the recording in reports
    skipped  list of (file, reason): unreadable recordings that this one replaces (crops only)
    padding  share of the crop that repeats its own sound (crops only, see filling.py)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from codec.data import audio
from codec.data.audio import AudioError
from codec.utils.errors import UserError

TRIES = 32  # unreadable recordings in a row before a draw fails


class CorpusError(UserError, RuntimeError):
    """Raised if a corpus as a whole cannot be used."""

    def __init__(self, message: str):
        # A DataLoader re-raises a worker's error with the whole traceback as its message: extract the sentence.
        super().__init__(" ".join(message.rpartition("CorpusError: ")[2].split()))


@dataclass(frozen=True)
class Recording:
    """One recording, an audio file or its bytes, and its metadata; `phones` is "symbol@seconds symbol@seconds ..."."""

    source: str | Path | bytes
    name: str
    speaker: str = ""
    text: str = ""
    phones: str = ""

    def read(self, sample_rate: int, start: int = 0, samples: int | None = None) -> np.ndarray:
        """Mono float32 [T], see `audio.read`. Raises AudioError."""
        return audio.read(self.source, sample_rate, start, samples, self.name)

    def item(self, wav: np.ndarray, start: int, sample_rate: int) -> dict:
        """The item (see above) of `wav` [T] from sample `start` of the recording."""
        phones = phones_within(self.phones, start / sample_rate, len(wav) / sample_rate)
        sound = torch.from_numpy(np.asarray(wav, np.float32))[None]
        return {"wav": sound, "speaker": self.speaker, "text": self.text, "phones": phones, "file": self.name}


def phones_within(phones: str, start: float, seconds: float) -> list[tuple[str, float]]:
    """Phones (symbol, seconds) that start within a window; the phone that is active at its beginning gets start 0."""
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
    """A set of recordings, part of it held out."""

    sample_rate: int  # of the items, Hz
    size: int | None = None  # number of recordings; None if unknown (a stream)
    bad: Sequence[tuple[str, str]] = ()  # (file, reason) of recordings found unreadable before any item was read
    upsampled: int = 0  # number of recordings with a lower rate than `sample_rate`, as far as known (not of a stream)
    held_out_by: str = "unknown"  # speaker: training has no recording of a held-out speaker; or file
    speakers_from: str = ""  # where the speakers' names are from, if not from a manifest or column

    @abstractmethod
    def crops(self, samples: int, seed: int) -> Dataset:
        """Endless training crops of `samples` samples: a `Stream`, or map-style: `ds[n]`, n >= 0, depends on (seed, n)
        alone. An unreadable recording is replaced by another one and listed under the item's "skipped". A crop longer
        than its recording goes on with others of the same speaker (filling.py)."""

    @abstractmethod
    def clips(self, split: str, max_seconds: float | None = None) -> Sequence[dict]:
        """Held-out recordings of `split`, "val" or "test" (possibly the same set), cut to the first `max_seconds`, in a
        fixed order. Access to an unreadable item raises AudioError; `readable` skips these."""

    def facts(self) -> dict[str, str]:
        """Facts for reports: what the held-out part is, and `warnings`."""
        facts = {"held_out_by": self.held_out_by, "speakers_from": self.speakers_from}
        return {name: fact for name, fact in facts.items() if fact} | self.warnings()

    def warnings(self) -> dict[str, str]:
        """Facts for logs and reports on recordings that are upsampled, and on speakers in both training and test."""
        facts = {}
        if self.upsampled:
            count = f"{self.upsampled:,} of {self.size:,} recordings" if self.size else f"{self.upsampled:,} recordings"
            facts["upsampled"] = f"{count}: below {self.sample_rate:,} Hz, and empty above half their own rate"
        if self.held_out_by == "file":
            facts["held_out_warning"] = (
                "by file, so that training may have the same speakers: name them in a manifest, by "
                "dataset.speaker_from or speaker_column"
            )
        return facts


class Stream(IterableDataset):
    """Endless items without access by draw number; a second iteration continues where the first stopped."""

    rank: int = 0
    world: int = 1
    start: int = 0
    _items: Iterator[dict] | None = None

    @abstractmethod
    def items(self) -> Iterator[dict]:
        """Endless items of this reader."""

    def set_reader(self, rank: int, world: int, start: int) -> None:
        """Set the rank, the number of ranks, and the draws of earlier runs, which are part of the seed."""
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


def given(path: str | Path) -> str | Path:
    """`path`, or CorpusError if it is empty: it would mean the working directory."""
    if not str(path or "").strip():
        raise CorpusError("dataset.path is empty (from a variable that is not set?): give a folder.")
    return path


def readable(clips: Sequence[dict], skipped: list[tuple[str, str]], limit: int | None = None) -> Iterator[dict]:
    """The first `limit` readable clips; (file, reason) of unreadable ones before them is appended to `skipped`."""
    count = 0
    for i in range(len(clips)):
        if count == limit:
            return
        try:
            item = clips[i]
        except AudioError as error:
            skipped.append((error.file, error.reason))
        else:
            count += 1
            yield item
