"""What a folder of latents says about itself, and what of it is believed.

index.json is written by ``python -m codec extract --kind latents``: which codec's latents they are, mean and standard
deviation of each channel over the training part, and the units with their splits. It may come from anywhere: names stay
inside the folder, numbers within bounds.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.data.base import CorpusError
from codec.data.index_schema import listed
from codec.latents.shard_file import Layout
from codec.quantizers.base import KINDS
from codec.utils.safe_io import UntrustedFileError, read_json

LATENTS = Layout("codec-latents", 1, "latents", "F32", "latents", "fingerprint")
INDEX = "index.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
FINGERPRINT = re.compile(r"[0-9a-f]{32}")
UNITS, CHANNELS, COUNT = 1_000_000, 65_536, 2**40  # at most; COUNT of recordings, frames and bytes of a unit
LEAST = 1e-30  # standard deviation; of a channel that changes less it is given as 1


@dataclass(frozen=True)
class Statistics:
    """Whose latents these are, and how they are distributed: all that a
    :class:`~codec.latents.latent_space.LatentSpace` needs besides the codec.

    Attributes:
        kind: "pre" or "post" quantization.
        fingerprint: of the codec that made them (codec/latents/latent_space.py).
        sample_rate, hop_length: of the codec, in Hz and samples.
        mean, std: ``[C]`` float32 of each channel over all training frames. A channel that never changes has std 1.
    """

    kind: str
    fingerprint: str
    sample_rate: int
    hop_length: int
    mean: Tensor
    std: Tensor

    def plain(self) -> dict[str, Any]:
        """Text, numbers and lists of them, for a checkpoint or JSON; :meth:`of` is the way back."""
        facts = {name: getattr(self, name) for name in ("kind", "fingerprint", "sample_rate", "hop_length")}
        return facts | {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def of(cls, content: Any, where: str) -> "Statistics":
        """From what :meth:`plain` gives. Raises CorpusError with ``where`` it comes from."""
        if not isinstance(content, dict):
            raise CorpusError(f"{where} has no statistics of latents.")
        kind, mark, mean, std = (content.get(name) for name in ("kind", "fingerprint", "mean", "std"))
        rates = content.get("sample_rate"), content.get("hop_length")
        if kind not in KINDS or not isinstance(mark, str) or not FINGERPRINT.fullmatch(mark):
            raise CorpusError(f"{where} does not say whose latents its statistics are of.")
        if not all(type(value) is int and 0 < value < 2**31 for value in rates):
            raise CorpusError(f"{where} must say sample rate and hop length, whole numbers above 0.")
        if not _numbers(mean) or not _numbers(std) or len(mean) != len(std) or min(std) < LEAST:
            raise CorpusError(f"{where} must give mean and standard deviation of 1 to {CHANNELS:,} channels.")
        return cls(kind, mark, *rates, *(torch.tensor(values, dtype=torch.float32) for values in (mean, std)))


@dataclass(frozen=True)
class Entry:
    """One unit: NAME.safetensors of so many recordings, frames and bytes."""

    name: str
    recordings: int
    frames: int
    bytes: int


@dataclass(frozen=True)
class Index:
    """``splits`` maps train, val and test to the numbers of their units, in order."""

    statistics: Statistics
    units: list[Entry]
    splits: dict[str, list[int]]


def load_index(folder: str | Path) -> Index:
    """The checked index of a folder of latents. Raises CorpusError."""
    path = Path(folder) / INDEX
    try:
        content = read_json(path)
    except OSError:
        raise CorpusError(f"{folder} has no {INDEX}: write one with python -m codec extract --kind latents.") from None
    except UntrustedFileError as error:
        raise CorpusError(f"{path} is no index of latents: {error}.") from None
    if content.get("format") != LATENTS.format:
        raise CorpusError(f"{path} is no index of latents: its format is not {LATENTS.format}.")
    if content.get("version") != LATENTS.version:
        raise CorpusError(f"{path} has version {content.get('version')!r:.20}, this program reads {LATENTS.version}.")
    units, splits = listed(content, str(path), "unit", UNITS, _entry)
    return Index(Statistics.of(content, str(path)), units, splits)


def _entry(content: Any, path: str) -> Entry:
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise CorpusError(f"{path} must say of each unit its name, recordings, frames and bytes.")
    if not NAME.fullmatch(content["name"]):
        raise CorpusError(f"{path} names a unit {content['name']!r:.80}: letters, digits, - and _ only, no folders.")
    counts = [content.get(name) for name in ("recordings", "frames", "bytes")]
    if not all(type(count) is int and 0 <= count <= COUNT for count in counts):
        raise CorpusError(f"{path} must count recordings, frames and bytes of {content['name']}.")
    return Entry(content["name"], *counts)


def _numbers(values: Any) -> bool:
    real = isinstance(values, list) and 0 < len(values) <= CHANNELS
    return real and all(type(v) in (int, float) and math.isfinite(v) and abs(v) < 1e30 for v in values)
