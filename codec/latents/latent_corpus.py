"""Dataset of the latents that ``python -m codec extract --kind latents`` wrote, to train generative models.

An item is a dict:
    latents  float32 tensor [C, F]; each channel has mean 0 and standard deviation 1 over the training part
    text     str, "" if unknown; of the whole recording, even if the latents are a part of it
    phones   list of (symbol, start in seconds from the first frame of `latents`), [] if unknown
    speaker, file  str, "" if the speaker is unknown
    samples  int, of the waveform of these frames; the last frame may be padded
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from codec.data.base import CorpusError, phones_within
from codec.latents.index import INDEX, LATENTS, Entry, load_index
from codec.latents.shard_file import ENDING, OpenShards, ShardFile

ADVICE = "remove it and extract again"
METADATA = ("text", "speaker", "file")


class LatentCorpus:
    """The latents in the folder ``path``, of which only the index is in memory. Raises CorpusError.

    Args:
        max_seconds: items are truncated to as many whole frames.

    Attributes:
        statistics: of the latents, for :class:`~codec.latents.latent_space.LatentSpace`; mean, std: ``[C]`` float32.
        train: the recordings for training.
    """

    def __init__(self, path: str | Path, max_seconds: float | None = None):
        self.path = Path(path)
        self.index = load_index(self.path)
        self.statistics = self.index.statistics
        self.mean, self.std = self.statistics.mean, self.statistics.std
        self.fingerprint, self.kind = self.statistics.fingerprint, self.statistics.kind
        self.sample_rate, self.hop_length = self.statistics.sample_rate, self.statistics.hop_length
        self.frame_rate, self.dim = self.sample_rate / self.hop_length, len(self.mean)
        self.max_frames = None if max_seconds is None else int(max_seconds * self.frame_rate)
        if self.max_frames is not None and self.max_frames < 1:
            least = math.ceil(1e4 / self.frame_rate) / 1e4
            raise CorpusError(f"max_seconds={max_seconds} is less than a frame: give {least:g} or more.")
        self.train = self.clips("train")
        self._shards = OpenShards(LATENTS, ADVICE)

    def clips(self, split: str) -> "LatentClips":
        """The recordings of "train", "val" or "test"; the last two are the same in a corpus with one held-out part."""
        return LatentClips(self, [self.index.units[i] for i in self.index.splits[split]])

    def shard(self, entry: Entry) -> ShardFile:
        """The open shard file. Raises CorpusError if it is damaged, or differs from its entry."""
        path = self.path / (entry.name + ENDING)
        shard = self._shards(path)
        wanted = self.fingerprint, self.kind, self.sample_rate, self.hop_length
        facts = tuple(shard.facts.get(name) for name in ("fingerprint", "kind", "sample_rate", "hop_length"))
        counts = shard.channels, len(shard), shard.frames, shard.size
        if facts != wanted or counts != (self.dim, entry.recordings, entry.frames, entry.bytes):
            raise CorpusError(f"{path} is not the file that {INDEX} lists: {ADVICE}.")
        return shard


class LatentClips(Sequence):
    """The latents of recordings, by number, read from disk on demand."""

    def __init__(self, corpus: LatentCorpus, files: list[Entry]):
        self.corpus, self.files = corpus, files
        self._ends = np.cumsum([entry.recordings for entry in files], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, n: int) -> dict:
        return self.item(n, 0, self.corpus.max_frames)

    def item(self, n: int, start_frame: int = 0, frames: int | None = None) -> dict:
        """At most ``frames`` frames (None: all) of recording n from ``start_frame`` on. Raises IndexError or ValueError
        if there is no such recording or frame, CorpusError if its file is damaged."""
        shard, number = self._find(n)
        first, end = shard.span(number)
        if not 0 <= start_frame < end - first or (frames is not None and frames < 1):
            raise ValueError(f"frames {start_frame} to {start_frame} + {frames} of a recording of {end - first}")
        first, last = first + start_frame, end if frames is None else min(end, first + start_frame + frames)
        known, hop, rate = shard.recordings[number], self.corpus.hop_length, self.corpus.sample_rate
        samples = min(int(shard.lengths[number]) - start_frame * hop, (last - first) * hop)
        try:
            latents = torch.from_numpy(shard.read(first, last))
            phones = phones_within(known["phones"], start_frame * hop / rate, samples / rate)
        except ValueError as error:  # a time that is no number
            raise CorpusError(f"{shard.path} is damaged at {known['file']}: {str(error)[:200]}") from None
        if not latents.isfinite().all():
            raise CorpusError(f"{shard.path} is damaged: the latents of {known['file']} are not finite.")
        latents = (latents - self.corpus.mean[:, None]) / self.corpus.std[:, None]
        about = {part: known[part] for part in METADATA}
        return {"latents": latents, "phones": phones, "samples": samples, **about}

    def about(self, n: int) -> dict:
        """Text, phones, speaker and file of the whole recording n. Raises the errors of :meth:`item`."""
        shard, number = self._find(n)
        known = shard.recordings[number]
        try:
            phones = phones_within(known["phones"], 0.0, math.inf)
        except ValueError as error:
            raise CorpusError(f"{shard.path} is damaged at {known['file']}: {str(error)[:200]}") from None
        return {part: known[part] for part in METADATA} | {"phones": phones}

    def _find(self, n: int) -> tuple[ShardFile, int]:
        """The shard file of recording n, and its number in the file."""
        if not 0 <= n < len(self):
            raise IndexError(f"recording {n} of {len(self)}")
        at = int(np.searchsorted(self._ends, n, side="right"))
        return self.corpus.shard(self.files[at]), n - (int(self._ends[at - 1]) if at else 0)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Frames of each whole recording, ``[recordings]`` int64. Opens every shard file."""
        ends = [self.corpus.shard(entry).ends for entry in self.files]
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(of_file, prepend=0) for of_file in ends)])


def collate(items: Sequence[dict]) -> dict[str, Any]:
    """Items -> latents ``[B, C, F]``, zero-padded on the right; lengths ``[B]`` int64 in frames; the rest as lists."""
    latents = pad_sequence([item["latents"].t() for item in items], batch_first=True).transpose(1, 2).contiguous()
    lengths = torch.tensor([item["latents"].shape[1] for item in items])
    rest = {part: [item[part] for item in items] for part in ("text", "phones", "speaker", "file")}
    return {"latents": latents, "lengths": lengths, **rest}
