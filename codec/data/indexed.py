"""Corpora of recordings with known durations: training crops by draw number, held-out clips by position."""

import logging
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from torch.utils.data import Dataset

from codec.data.audio import AudioError
from codec.data.base import TRIES, Corpus, CorpusError, Recording
from codec.data.crop_index import CropIndex
from codec.data.filling import filled
from codec.utils.cache import cache_key

log = logging.getLogger(__name__)


class IndexedCorpus(Corpus):
    """A corpus of numbered recordings of known `lengths` [recordings] int64, in samples at `sample_rate`. `splits` maps
    "train", "val" and "test" to numbers of recordings; `speakers` are theirs, "" if unknown."""

    def __init__(self, sample_rate: int, lengths: np.ndarray, splits: dict[str, np.ndarray], speakers: Sequence[str]):
        self.sample_rate, self.lengths, self.splits, self.speakers = sample_rate, lengths, splits, speakers
        train, held = ({speakers[i] for p in parts for i in splits[p]} for parts in (("train",), ("val", "test")))
        if train and held:
            self.held_out_by = "file" if "" in train | held or train & held else "speaker"

    @abstractmethod
    def recording(self, i: int) -> Recording: ...

    def identity(self) -> Iterator[str]:
        """Strings that distinguish corpora of equal lengths; here the names of the first 100 training recordings."""
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
    """Training crops by draw number; see `CropIndex`."""

    def __init__(self, corpus: IndexedCorpus, numbers: np.ndarray, samples: int, seed: int):
        super().__init__(numbers, corpus.lengths[numbers], samples, seed)
        self.corpus = corpus

    @cached_property
    def _of_speaker(self) -> dict[str | int, list[int]]:
        found = defaultdict(list)
        for number in self.numbers.tolist():
            found[self.corpus.speakers[number]].append(number)
        return found

    def __getitem__(self, n: int) -> dict:
        rng = np.random.default_rng((self.seed, 1, n))
        slot, skipped = self.slot(n), []
        for _ in range(TRIES):
            number, start = self.locate(slot, rng.random())
            try:
                recording = self.corpus.recording(number)
                wav = recording.read(self.corpus.sample_rate, start, self.size)
            except AudioError as error:
                skipped.append((error.file, error.reason))
                # another recording, not slot: a header with a false length may have most of the slots
                at = int(rng.integers(len(self.numbers)))
                slot = int(rng.integers(self.ends[at - 1] if at else 0, self.ends[at]))
            else:
                item = recording.item(wav, start, self.corpus.sample_rate)
                further = self._further(number, rng, skipped)
                return filled(item, further, self.size, self.corpus.sample_rate) | {"skipped": skipped}
        last = " ".join(skipped[-1])
        raise CorpusError(f"{TRIES} recordings in a row cannot be read (last: {last}): check the corpus.")

    def _further(self, number: int, rng: np.random.Generator, skipped: list[tuple[str, str]]) -> Iterator[dict]:
        """Crops of the other training recordings by a known speaker, in random order."""
        rate = self.corpus.sample_rate
        others = self._of_speaker[speaker] if (speaker := self.corpus.speakers[number]) else []
        for other in (others[i] for i in rng.permutation(len(others)) if others[i] != number):
            start = int(rng.random() * (max(0, int(self.corpus.lengths[other]) - self.size) + 1))
            try:
                recording = self.corpus.recording(other)
                yield recording.item(recording.read(rate, start, self.size), start, rate)
            except AudioError as error:
                skipped.append((error.file, error.reason))


class Clips(Sequence):
    """Whole recordings, cut to `samples` samples if given, read on access."""

    def __init__(self, corpus: IndexedCorpus, numbers: Sequence[int], samples: int | None):
        self.corpus, self.numbers, self.samples = corpus, numbers, samples

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> dict:
        recording = self.corpus.recording(int(self.numbers[i]))
        rate = self.corpus.sample_rate
        return recording.item(recording.read(rate, 0, self.samples), 0, rate)


def split(
    names: Sequence[str], speakers: Sequence[str], share: float, seed: int, marks: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Numbers of the recordings of "train", "val" and "test"; the latter two alternate between speakers.

    `marks` [recordings] names the split of each; without marks of val or test, about `share` of the recordings are test
    and as many val: whole speakers if two or more are known. They are chosen by hashes of (seed, name), so that they
    change little when a corpus grows. Where that leaves too little for training (`share` >= 1/4, few speakers), and
    where only val is marked, the one part is divided. `share` >= 1 makes every recording a clip of both.
    """
    everything = np.arange(len(names))
    parts = {"train": everything, "test": everything[:0], "val": everything[:0]}
    if share >= 1:
        parts = {"train": everything[:0], "test": everything, "val": everything}
    elif marks is not None:
        parts = {part: everything[marks == part] for part in parts}
    by_speaker = len({*speakers} - {""}) > 1
    pairs = zip(names, speakers, strict=True)
    groups = [(speaker if by_speaker else name) or f"file {name}" for name, speaker in pairs]
    wanted = max(1, round(share * len(names))) if share > 0 else 0
    for part in () if len(parts["val"]) else ("test", "val"):
        divisible = part == "val" and marks is None  # test was drawn, too
        if not len(parts[part]) and not (divisible and share >= 0.25):
            mask = _hold_out([groups[i] for i in parts["train"]], wanted, seed, 0 if divisible else 1)
            parts[part], parts["train"] = parts["train"][mask], parts["train"][~mask]
    parts |= {part: interleave_speakers(parts[part], names, speakers) for part in ("val", "test")}
    if not len(parts["val"]) or not len(parts["test"]):
        held = parts["val"] if len(parts["val"]) else parts["test"]
        half = -(-len(held) // 2)  # each half has all speakers of several recordings
        parts |= {"val": held[:half], "test": held[half:] if len(held) > 1 else held}
    if share > 0 and not len(parts["test"]):
        log.warning("the corpus is too small to hold anything out: validation and test are on the training recordings")
        parts["val"] = parts["test"] = everything
    elif share < 1 and {*parts["val"].tolist()} & {*parts["test"].tolist()}:
        log.warning("the corpus is too small for two held-out parts: validation and test are the same recording")
    return parts


def _hold_out(groups: Sequence[str], wanted: int, seed: int, least: int) -> np.ndarray:
    """Mask [recordings] of whole groups, at most 2 * `wanted` recordings if `least` is 0; else at least one group."""
    sizes = Counter(groups)
    held_out: set[str] = set()
    if wanted > 0 and len(sizes) > 1:
        order = sorted(sizes, key=lambda group: cache_key(seed, group))
        count = 0
        for group in order:
            # A speaker of far more recordings than requested stays in training.
            if count < wanted and count + sizes[group] <= 2 * wanted:
                held_out.add(group)
                count += sizes[group]
        held_out = held_out or {*sorted(order, key=sizes.__getitem__)[:least]}
        if len(held_out) == len(sizes):
            held_out.discard(max(order, key=sizes.__getitem__))
    return np.array([group in held_out for group in groups], bool)


def interleave_speakers(numbers: np.ndarray, names: Sequence[str], speakers: Sequence[str]) -> np.ndarray:
    """Order clips `numbers` by speakers in turn, in a fixed shuffle within each (neighbours in a folder are alike)."""
    counts: Counter[str] = Counter()
    order = []
    for i in sorted(numbers, key=lambda i: cache_key(names[i])):
        counts[speakers[i]] += 1
        order.append((counts[speakers[i]], speakers[i], i))
    order.sort(key=lambda turn: turn[:2])
    return np.array([i for _, _, i in order], np.int64)
