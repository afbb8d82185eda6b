"""A mixture of corpora in given proportions."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset

from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Stream


class MixCorpus(Corpus):
    """Mixture of `corpora`, drawn in proportion to `weights` (both by name); held-out clips alternate between corpora.
    Files are reported as "name/file"."""

    def __init__(self, corpora: dict[str, Corpus], weights: dict[str, float]):
        if set(corpora) != set(weights) or not corpora:
            raise CorpusError(f"the mix has the corpora {sorted(corpora)} but weights for {sorted(weights)}.")
        if min(weights.values()) < 0 or not sum(weights.values()):
            raise CorpusError(f"the weights of the mix must be 0 or more and not all 0, they are {dict(weights)}.")
        rates = {name: corpus.sample_rate for name, corpus in corpora.items()}
        if len(set(rates.values())) > 1:
            raise CorpusError(f"the corpora of the mix must have the same sample rate, they have {rates}.")
        self.sample_rate = next(iter(rates.values()))
        self.corpora = {name: corpora[name] for name in corpora if weights[name]}
        self.shares = np.array([weights[name] for name in self.corpora]) / sum(weights.values())
        sizes = [corpus.size for corpus in self.corpora.values()]
        self.size = None if None in sizes else sum(sizes)
        by = {corpus.held_out_by for corpus in self.corpora.values()}
        self.held_out_by = next((kind for kind in ("file", "unknown") if kind in by), "speaker")

    @property
    def bad(self) -> Sequence[tuple[str, str]]:
        return [(f"{name}/{file}", why) for name, corpus in self.corpora.items() for file, why in corpus.bad]

    @property
    def upsampled(self) -> int:
        return sum(corpus.upsampled for corpus in self.corpora.values())

    def crops(self, samples: int, seed: int) -> Dataset:
        crops = {name: corpus.crops(samples, seed) for name, corpus in self.corpora.items()}
        streamed = any(isinstance(part, Stream) for part in crops.values())
        return (MixStream if streamed else MixCrops)(crops, self.shares, seed)

    def clips(self, split: str, max_seconds: float | None = None) -> Sequence[dict]:
        return MixClips({name: corpus.clips(split, max_seconds) for name, corpus in self.corpora.items()})


class MixCrops(Dataset):
    """Map-style mixture: draw n is draw n of the corpus that (seed, n) selects, so none repeats in an epoch of it."""

    def __init__(self, crops: dict[str, Dataset], shares: np.ndarray, seed: int):
        self.names, self.crops, self.shares, self.seed = list(crops), crops, shares, seed

    def __getitem__(self, n: int) -> dict:
        name = self.names[np.random.default_rng((self.seed, 3, n)).choice(len(self.names), p=self.shares)]
        return _labelled(self.crops[name][n], name)


class MixStream(Stream):
    """Mixture with at least one stream; draws of map-style crops are divided among the readers."""

    def __init__(self, crops: dict[str, Dataset], shares: np.ndarray, seed: int):
        self.names, self.crops, self.shares, self.seed = list(crops), crops, shares, seed

    def items(self) -> Iterator[dict]:
        part, parts = self.part()
        sources = []
        for crops in self.crops.values():
            if isinstance(crops, Stream):
                crops.set_reader(self.rank, self.world, self.start)
                sources.append(iter(crops))
            else:
                sources.append(map(crops.__getitem__, itertools.count(self.start + part, parts)))
        rng = np.random.default_rng((self.seed, 3, self.start, part))
        while True:
            chosen = rng.choice(len(sources), p=self.shares)
            yield _labelled(next(sources[chosen]), self.names[chosen])


class MixClips(Sequence):
    """Clips of all corpora, alternating."""

    def __init__(self, clips: dict[str, Sequence[dict]]):
        self.clips = clips
        self.order = sorted((i, at, name) for at, name in enumerate(clips) for i in range(len(clips[name])))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> dict:
        position, _, name = self.order[i]
        try:
            return _labelled(self.clips[name][position], name)
        except AudioError as error:
            raise AudioError(f"{name}/{error.file}", error.reason) from None


def _labelled(item: dict, name: str) -> dict:
    skipped = [(f"{name}/{file}", reason) for file, reason in item.get("skipped", ())]
    return item | {"file": f"{name}/{item['file']}"} | ({"skipped": skipped} if "skipped" in item else {})
