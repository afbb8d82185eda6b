"""The index of a folder of latents (index.json of ``python -m codec extract --kind latents``): source, statistics, and
shard files of each split. The file is untrusted and validated: names cannot leave the folder, numbers have bounds.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import FailFast, Field, StringConstraints, model_validator
from torch import Tensor

from codec.data.base import CorpusError
from codec.data.index_schema import CorpusIndex, Part, parse_index
from codec.latents.shard_file import Layout, Rate
from codec.utils.safe_io import Schema, UntrustedFileError, parse_as, read_text

LATENTS = Layout("codec-latents", 1, "latents", "F32", "latents", "fingerprint")
INDEX = "index.json"
MAX_UNITS, MAX_CHANNELS = 1_000_000, 65_536
LEAST = 1e-30  # a channel with a smaller standard deviation is constant, and gets 1
Count = Annotated[int, Field(ge=0, le=2**40)]


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of the latents of a codec, and the identity of the codec.

    Attributes:
        kind: "pre" or "post" quantization.
        fingerprint: of the codec, by :func:`~codec.latents.latent_space.latent_fingerprint`.
        sample_rate, hop_length: of the codec, in Hz and samples.
        mean, std: ``[C]`` float32, of each channel over all training frames; std is 1 for a constant channel.
    """

    kind: str
    fingerprint: str
    sample_rate: int
    hop_length: int
    mean: Tensor
    std: Tensor

    def plain(self) -> dict[str, Any]:
        """Strings, numbers and lists, for a checkpoint or JSON; :meth:`of` is the inverse."""
        facts = {name: getattr(self, name) for name in ("kind", "fingerprint", "sample_rate", "hop_length")}
        return facts | {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def of(cls, content: Any, where: str) -> "Statistics":
        """The inverse of :meth:`plain`. Raises CorpusError, with the name ``where`` of the source of ``content``."""
        try:
            return parse_as(_Statistics, content, where).statistics
        except UntrustedFileError as error:
            raise CorpusError(f"{error}.") from None


class _Statistics(Schema):
    kind: Literal["pre", "post"]
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    sample_rate: Rate
    hop_length: Rate
    mean: Annotated[
        list[Annotated[float, Field(gt=-1e30, lt=1e30)]], Field(min_length=1, max_length=MAX_CHANNELS), FailFast()
    ]
    std: Annotated[list[Annotated[float, Field(ge=LEAST, lt=1e30)]], Field(max_length=MAX_CHANNELS), FailFast()]

    @cached_property
    def statistics(self) -> Statistics:
        mean, std = (torch.tensor(values, dtype=torch.float32) for values in (self.mean, self.std))
        return Statistics(self.kind, self.fingerprint, self.sample_rate, self.hop_length, mean, std)

    @model_validator(mode="after")
    def _has_channels(self) -> "_Statistics":
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std have different numbers of channels")
        return self


class Entry(Part):
    """A shard file NAME.safetensors, and its numbers of recordings, frames and bytes."""

    recordings: Count
    frames: Count
    bytes: Count


class Index(CorpusIndex, _Statistics):
    """Shard files of latents, their splits, and their statistics."""

    format: Literal["codec-latents"]
    version: Literal[1]
    units: Annotated[list[Entry], Field(min_length=1, max_length=MAX_UNITS), FailFast()]

    @property
    def parts(self) -> list[Part]:
        return self.units


def load_index(folder: str | Path) -> Index:
    """The validated index of a folder of latents. Raises CorpusError."""
    path, command = Path(folder) / INDEX, "python -m codec extract --kind latents"
    try:
        return parse_index(read_text(path), Index, str(path), f"write one with {command}")
    except OSError:
        raise CorpusError(f"{folder} has no {INDEX}: write one with {command}.") from None
    except UntrustedFileError as error:
        raise CorpusError(f"{path} is no index of latents: {error}.") from None
