"""Corpora whose durations are known: training crops by draw number, held-out clips by position."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import TRIES, Corpus, CorpusError, Recording
from codec.data.crop_index import CropIndex
from codec.utils.cache import cache_key


class IndexedCorpus(Corpus):
    """A corpus of numbered recordings.

    `lengths` [recordings] int64 counts samples at `sample_rate`; `splits` maps "train", "val" and "test" to
    the numbers of the recordings in each.
    """

    def __init__(self, sample_rate: int, lengths: np.ndarray, splits: dict[str, np.ndarray]):
        self.sample_rate = sample_rate
        self.lengths = lengths
        self.splits = splits

    @abstractmethod
    def recording(self, i: int) -> Recording: ...

    def known(self) -> Iterator[str]:
        """What tells this corpus from another besides its lengths: here the names of the first recordings."""
        for i in self.splits["train"][:100].tolist():
            try:
                yield self.recording(i).name
            except AudioError as error:
                yield error.file

    def crops(self, samples: int, seed: int) -> Dataset:
        if not len(self.splits["train"]):
            raise CorpusError("every recording is held out and none is left for training: lower `holdout`.")
        return Crops(self, self.splits["train"], samples, seed)

    def clips(self, split: str, max_seconds: float | None = None) -> Sequence[dict]:
        return Clips(self, self.splits[split], None if max_seconds is None else int(max_seconds * self.sample_rate))


class Crops(CropIndex):
    """ds[n] for every n >= 0, a function of (seed, n) alone; see `CropIndex`."""

    def __init__(self, corpus: IndexedCorpus, files: np.ndarray, samples: int, seed: int):
        super().__init__(files, corpus.lengths[files], samples, seed)
        self.corpus = corpus

    def __getitem__(self, n: int) -> dict:
        rng = np.random.default_rng((self.seed, 1, n))
        slot, skipped = self.slot(n), []
        for _ in range(TRIES):
            file, start = self.place(slot, rng.random())
            try:
                recording = self.corpus.recording(file)
                wav = audio.read(recording.source, self.corpus.sample_rate, start, self.size, recording.name)
            except AudioError as error:
                skipped.append((error.file, error.reason))
                at = int(rng.integers(len(self.numbers)))  # one that lies about its length may have most of the slots
                slot = int(rng.integers(self.ends[at - 1] if at else 0, self.ends[at]))
            else:
                return recording.item(wav, start, self.size, self.corpus.sample_rate) | {"skipped": skipped}
        file, reason = skipped[-1]
        raise CorpusError(f"{TRIES} recordings in a row cannot be read (last: {file} {reason}): check the corpus.")


class Clips(Sequence):
    """Whole recordings, cut to `samples` samples if given, read when asked for."""

    def __init__(self, corpus: IndexedCorpus, files: np.ndarray, samples: int | None):
        self.corpus = corpus
        self.files = files
        self.samples = samples

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> dict:
        recording = self.corpus.recording(int(self.files[i]))
        wav = audio.read(recording.source, self.corpus.sample_rate, 0, self.samples, recording.name)
        return recording.item(wav, 0, 0, self.corpus.sample_rate)


def hold_out(names: Sequence[str], speakers: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Mask [recordings] of those held out: about `share` of them, whole speakers where two or more are known.

    The choice hangs on hashes of (seed, name), so that it hardly moves when a corpus grows. With 0 < share <
    1 something is held out and something left wherever there are two groups.
    """
    groups = list(speakers) if len(set(speakers) - {""}) > 1 else list(names)
    groups = [group or f"file {name}" for group, name in zip(groups, names, strict=True)]
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    wanted = max(1, round(share * len(names)))
    held: set[str] = set()
    if share >= 1:
        held = set(sizes)
    elif share > 0 and len(sizes) > 1:
        order = sorted(sizes, key=lambda group: cache_key(seed, group))
        count = 0
        for group in order:
            # A speaker who is far more than was asked for stays in training.
            if count < wanted and count + sizes[group] <= 2 * wanted:
                held.add(group)
                count += sizes[group]
        if not held:
            held = {min(order, key=sizes.__getitem__)}
        if len(held) == len(sizes):
            held.discard(max(order, key=sizes.__getitem__))
    return np.array([group in held for group in groups], bool)


def in_turns(which: np.ndarray, names: Sequence[str], speakers: Sequence[str]) -> np.ndarray:
    """`which` in the order of clips: speakers take turns, so that the first few clips are of many.

    Within a speaker the order is a fixed shuffle, since neighbours in a folder are alike too.
    """
    shuffled = sorted(which, key=lambda i: cache_key(names[i]))
    turns: dict[str, int] = {}
    order = []
    for i in shuffled:
        turns[speakers[i]] = turns.get(speakers[i], 0) + 1
        order.append((turns[speakers[i]], speakers[i], i))
    order.sort(key=lambda turn: turn[:2])
    return np.array([i for _, _, i in order], np.int64)
