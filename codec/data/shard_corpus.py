"""Corpus in shards, written by `python -m codec pack`, in a folder or at a URL. WebDataset tar files are read by byte
position: draw n depends on (seed, n) alone, resuming is exact with any number of ranks and workers, and a rank fetches
only its own draws."""

import hashlib
import io
import logging
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording, given
from codec.data.indexed import Clips, Crops
from codec.data.manifest import phones_are_timed
from codec.data.remote_files import RemoteFolder
from codec.data.shard_index import INDEX, Shard, entries_bytes, load_entries, load_index
from codec.utils.cache import cache_dir, cache_key, load_json, save_json
from codec.utils.safe_io import parse_json

log = logging.getLogger(__name__)

IN_MEMORY = 32  # shards whose entries stay in memory


class ShardCorpus(Corpus):
    """Corpus of the shards at `path`, a folder or a URL that fsspec opens (http, https, s3 with s3fs, ...).

    Training permutes the shards in each epoch, and draws from all recordings of `window` shards at a time. `cache` is a
    folder for whole shards from a URL, each verified by its sha256, the oldest removed beyond `cache_gb` GB; without
    it, each recording is one range request. `storage_options` are fsspec's. Raises CorpusError if there is no valid
    index, or the server has no range requests.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        window: int = 8,
        cache: str | Path | None = None,
        cache_gb: float = 50.0,
        storage_options: dict[str, Any] | None = None,
    ):
        if window < 1:
            raise CorpusError(f"dataset.window={window}, but training needs a window of 1 shard or more.")
        self.sample_rate, self.window = sample_rate, window
        self.folder = RemoteFolder(given(path), storage_options, cache or "", cache_gb)
        self.index = load_index(self.folder)
        self.folder.check_ranges(INDEX)
        self.size = sum(shard.recordings for shard in self.index.shards)
        self.held_out_by = self.index.held_out_by
        if self.index.splits["train"] and {*self.index.splits["val"]} & {*self.index.splits["test"]}:
            log.warning("validation and test are the same shards of %s: pack them again", self.folder.label)

    def crops(self, samples: int, seed: int) -> Dataset:
        numbers = self.index.splits["train"]
        if not numbers:
            raise CorpusError(f"{self.folder.label} has no shards for training: pack with less held out.")
        crops = ShardCrops(self, [self.index.shards[i] for i in numbers], samples, seed)
        self.upsampled = crops.upsampled
        return crops

    def clips(self, split: str, max_seconds: float | None = None) -> Sequence[dict]:
        recordings = self.part(split)
        samples = None if max_seconds is None else int(max_seconds * self.sample_rate)
        return Clips(recordings, range(len(recordings)), samples)

    def part(self, split: str) -> "Recordings":
        return Recordings(self.folder, [self.index.shards[i] for i in self.index.splits[split]], self.sample_rate)


class Recordings:
    """Recordings of some shards, by number; the corpus of `Crops` and `Clips`."""

    def __init__(self, folder: RemoteFolder, shards: Sequence[Shard], sample_rate: int, in_memory: int = IN_MEMORY):
        self.folder, self.shards, self.sample_rate, self.in_memory = folder, shards, sample_rate, in_memory
        self._places: dict[int, np.ndarray] = {}
        self.ends = np.cumsum([shard.recordings for shard in shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @cached_property
    def lengths(self) -> np.ndarray:
        """Samples of each recording at `sample_rate`, [recordings] int64."""
        return np.concatenate([lengths(self.place(at), self.sample_rate) for at in range(len(self.shards))])

    def place(self, at: int) -> np.ndarray:
        """`place` [n, 5] of shard `at` (shard_index.py); those of the last `in_memory` shards stay in memory."""
        if at not in self._places:
            if len(self._places) >= self.in_memory:
                del self._places[next(iter(self._places))]
            self._places[at] = entries(self.folder, self.shards[at])
        return self._places[at]

    @cached_property
    def speakers(self) -> np.ndarray:
        """Numbers of the speakers [recordings] int64, 0 if unknown."""
        return np.concatenate([self.place(at)[:, 4] for at in range(len(self.shards))])

    def recording(self, i: int) -> Recording:
        """Recording i. Raises AudioError if the bytes at its place are anything else."""
        at = int(np.searchsorted(self.ends, i, side="right"))
        shard = self.shards[at]
        number = i - (int(self.ends[at - 1]) if at else 0)
        first, size = (int(value) for value in self.place(at)[number, :2])
        data = self.folder.read_range(f"{shard.name}.tar", first, size, shard.sha256, shard.bytes)
        return unpack(data, shard.name, number)


class ShardCrops(Dataset):
    """Training crops for every draw n >= 0, functions of (seed, n) alone. An epoch is a permutation of the shards, cut
    into windows, each a `Crops`: every recording has ceil(duration / crop) slots, each drawn once. Memory holds a
    window or two, and a number per shard."""

    def __init__(self, corpus: ShardCorpus, shards: list[Shard], samples: int, seed: int):
        self.folder, self.sample_rate, self.window = corpus.folder, corpus.sample_rate, corpus.window
        self.shards, self.samples, self.seed = shards, samples, seed
        self.shard_slots, self.upsampled = _slots(corpus.folder, shards, corpus.sample_rate, samples)
        self.slots = int(self.shard_slots.sum())
        self._epoch = -1
        self._order = self._ends = np.empty(0, np.int64)
        self._window: tuple[tuple[int, int], Crops] | None = None

    def __getitem__(self, n: int) -> dict:
        crops, draw = self.locate(n)
        return crops[draw]

    def locate(self, n: int) -> tuple[Crops, int]:
        """The window of draw n, and the draw number in it."""
        epoch, position = divmod(n, self.slots)
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, 6, epoch)).permutation(len(self.shards))
            self._ends = np.cumsum(self.shard_slots[self._order])[self.window - 1 :: self.window]
            self._epoch = epoch
        at = int(np.searchsorted(self._ends, position, side="right"))
        return self._crops(epoch, at), position - (int(self._ends[at - 1]) if at else 0)

    def _crops(self, epoch: int, at: int) -> Crops:
        if self._window is None or self._window[0] != (epoch, at):
            shards = [self.shards[i] for i in self._order[at * self.window : (at + 1) * self.window]]
            recordings = Recordings(self.folder, shards, self.sample_rate, len(shards))
            seed = int(np.random.SeedSequence((self.seed, 7, epoch, at)).generate_state(1, np.uint64)[0])
            self._window = (epoch, at), Crops(recordings, np.arange(len(recordings)), self.samples, seed)
        return self._window[1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_window": None}


def lengths(place: np.ndarray, sample_rate: int) -> np.ndarray:
    """Samples at `sample_rate`, [n] int64, of the recordings in `place` [n, 5]."""
    frames, rates = place[:, 2], place[:, 3]
    whole, rest = np.divmod(frames, rates)
    return np.maximum(1, whole * sample_rate + rest * sample_rate // rates)


def entries(folder: RemoteFolder, shard: Shard) -> np.ndarray:
    """Read `place` [n, 5] of a shard (shard_index.py), verified by its sha256 and the index."""
    name = f"{shard.name}.entries"
    content, where = folder.read(name, entries_bytes(shard)), f"{folder.label}/{name}"
    if hashlib.sha256(content).hexdigest() != shard.entries:
        raise CorpusError(f"the sha256 of {where} is not the one in the index: pack or copy it again.")
    return load_entries(content, shard, where)


def unpack(data: bytes, shard: str, number: int) -> Recording:
    """Recording in a piece of a tar file. Raises AudioError if the piece is anything else."""
    name = f"{shard}-{number:06d}"
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:  # "r:" decompresses nothing
            members = tar.getmembers()
            plain = all(m.isreg() and not m.issparse() and m.size <= len(data) for m in members)
            if [member.name for member in members] != [f"{name}.flac", f"{name}.json"] or not plain:
                raise AudioError(name, "is not where the index says")
            sound, about = (tar.extractfile(member).read() for member in members)
        about = parse_json(about)
        facts = [about[part] for part in ("file", "speaker", "text", "phones")]
        if not all(isinstance(fact, str) for fact in facts):
            raise TypeError
        if not phones_are_timed(facts[3]):
            raise AudioError(name, "has phones that are not symbol@seconds in the order of their times")
    except (tarfile.TarError, ValueError, TypeError, KeyError, OverflowError):
        raise AudioError(name, "is damaged, or not where the index says") from None
    return Recording(sound, *facts)


def _slots(folder: RemoteFolder, shards: list[Shard], sample_rate: int, samples: int) -> tuple[np.ndarray, int]:
    """Number of slots of each shard, [shards] int64, and of upsampled recordings, from all NAME.entries; cached."""
    cached = cache_dir() / "shards" / f"{cache_key(sample_rate, samples, *(shard.entries for shard in shards))}.json"
    known = load_json(cached)
    if "upsampled" not in known:

        def count(shard: Shard) -> tuple[int, int]:
            place = entries(folder, shard)
            return int((-(-lengths(place, sample_rate) // samples)).sum()), int((place[:, 3] < sample_rate).sum())

        with ThreadPoolExecutor(1 if folder.is_local else 8) as pool:
            slots, below = zip(*pool.map(count, shards), strict=True)
        known = {"slots": slots, "upsampled": sum(below)}
        save_json(cached, known)
    return np.array(known["slots"], np.int64), known["upsampled"]
