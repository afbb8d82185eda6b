"""The latents of a corpus as ``python -m codec extract --kind latents`` wrote them, for training a generative model.

An item is a plain dict:
    latents  float32 tensor [C, F], normalised: mean 0 and standard deviation 1 of each channel over the training part
    text     str, "" if unknown; of the whole recording, also where the latents are cut
    phones   list of (symbol, start in seconds from the first frame of `latents`), [] if unknown
    speaker  str, "" if unknown
    file     str, the name under which the recording is reported
    samples  int, of the waveform that these frames stand for; the last frame may be filled up
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from codec.data.base import CorpusError, phones_within
from codec.latents.index import INDEX, LATENTS, Entry, load_index
from codec.latents.shard_file import ENDING, OpenUnits, UnitError, UnitFile


class LatentCorpus:
    """The latents in the folder ``path``. In memory is the index; units are opened when an item of them is asked for.

    Args:
        max_seconds: items end there, after whole frames.

    Attributes:
        statistics: whose latents they are; what :class:`~codec.latents.latent_space.LatentSpace` asks for.
        mean, std: ``[C]`` float32 of each channel over the training part.
        train: the recordings for training.

    Raises:
        CorpusError: if there is no such folder, or its index says what cannot be.
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
            raise CorpusError(f"max_seconds={max_seconds} is less than a frame: give {1 / self.frame_rate:g} or more.")
        self.train = self.clips("train")
        self._units = OpenUnits(LATENTS)

    def clips(self, split: str) -> "LatentClips":
        """The recordings of "train", "val" or "test"; a corpus with one held-out part gives the same for both."""
        return LatentClips(self, [self.index.units[i] for i in self.index.splits[split]])

    def unit(self, entry: Entry) -> UnitFile:
        """An open unit. Raises CorpusError if it is damaged, or of other latents than the index speaks of."""
        path = self.path / (entry.name + ENDING)
        try:
            unit = self._units(path)
        except UnitError as error:
            raise CorpusError(f"{error}; remove it and extract again.") from None
        wanted = self.fingerprint, self.kind, self.sample_rate, self.hop_length
        told = tuple(unit.facts.get(name) for name in ("fingerprint", "kind", "sample_rate", "hop_length"))
        counts = unit.rows, len(unit), unit.frames, unit.size
        if told != wanted or counts != (self.dim, entry.recordings, entry.frames, entry.bytes):
            raise CorpusError(f"{path} is not the unit that {INDEX} counts: remove it and extract again.")
        return unit


class LatentClips(Sequence):
    """Recordings by number, read when asked for."""

    def __init__(self, corpus: LatentCorpus, units: list[Entry]):
        self.corpus, self.units = corpus, units
        self._ends = np.cumsum([unit.recordings for unit in units], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, n: int) -> dict:
        return self.item(n, 0, self.corpus.max_frames)

    def item(self, n: int, start_frame: int = 0, frames: int | None = None) -> dict:
        """Recording n from a frame on, so many frames of it (None: all) or as many as there are.

        Raises:
            IndexError: if there is no such recording.
            ValueError: if it has no such frame.
            CorpusError: if its unit is damaged.
        """
        unit, number = self._find(n)
        first, end = unit.place(number)
        if not 0 <= start_frame < end - first or (frames is not None and frames < 1):
            raise ValueError(f"frames {start_frame} to {start_frame} + {frames} of a recording of {end - first}")
        first, last = first + start_frame, end if frames is None else min(end, first + start_frame + frames)
        known, hop, rate = unit.recordings[number], self.corpus.hop_length, self.corpus.sample_rate
        samples = min(int(unit.lengths[number]) - start_frame * hop, (last - first) * hop)
        try:
            latents = torch.from_numpy(unit.read(first, last))
            phones = phones_within(known["phones"], start_frame * hop / rate, samples / rate)
        except ValueError as error:  # UnitError; a time that is no number
            raise CorpusError(f"{unit.path} is damaged at {known['file']}: {str(error)[:200]}") from None
        if not latents.isfinite().all():
            raise CorpusError(f"{unit.path} is damaged: the latents of {known['file']} are not finite.")
        latents = (latents - self.corpus.mean[:, None]) / self.corpus.std[:, None]
        about = {part: known[part] for part in ("text", "speaker", "file")}
        return {"latents": latents, "phones": phones, "samples": samples, **about}

    def about(self, n: int) -> dict:
        """What is known of the whole of recording n, its latents unread: text, phones, speaker, file. Raises as
        :meth:`item` does."""
        unit, number = self._find(n)
        known = unit.recordings[number]
        try:
            phones = phones_within(known["phones"], 0.0, math.inf)
        except ValueError as error:
            raise CorpusError(f"{unit.path} is damaged at {known['file']}: {str(error)[:200]}") from None
        return {part: known[part] for part in ("text", "speaker", "file")} | {"phones": phones}

    def _find(self, n: int) -> tuple[UnitFile, int]:
        """The open unit of recording n, and its number there."""
        if not 0 <= n < len(self):
            raise IndexError(f"recording {n} of {len(self)}")
        at = int(np.searchsorted(self._ends, n, side="right"))
        return self.corpus.unit(self.units[at]), n - (int(self._ends[at - 1]) if at else 0)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Frames of each whole recording, ``[recordings]`` int64: one look at every unit."""
        ends = [self.corpus.unit(entry).ends for entry in self.units]
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(of_unit, prepend=0) for of_unit in ends)])


def collate(items: Sequence[dict]) -> dict[str, Any]:
    """Items -> latents ``[B, C, F]`` with zeros on the right, lengths ``[B]`` int64 (frames), and text, phones, speaker
    and file as lists."""
    latents = pad_sequence([item["latents"].t() for item in items], batch_first=True).transpose(1, 2).contiguous()
    lengths: Tensor = torch.tensor([item["latents"].shape[1] for item in items])
    return {"latents": latents, "lengths": lengths} | {
        part: [item[part] for item in items] for part in ("text", "phones", "speaker", "file")
    }
