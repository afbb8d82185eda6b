"""What a folder of latents says about itself, and what of it is believed.

index.json is written by ``python -m codec extract --kind latents``: which codec's latents they are, mean and standard
deviation of each channel over the training part, and the units with their splits. It may come from anywhere: names stay
inside the folder, numbers within bounds.
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
from codec.latents.shard_file import Layout
from codec.utils.safe_io import Schema, UntrustedFileError, parse_as, read_text

LATENTS = Layout("codec-latents", 1, "latents", "F32", "latents", "fingerprint")
INDEX = "index.json"
UNITS, CHANNELS = 1_000_000, 65_536  # at most
LEAST = 1e-30  # standard deviation; of a channel that changes less it is given as 1
Count = Annotated[int, Field(ge=0, le=2**40)]
Rate = Annotated[int, Field(gt=0, lt=2**31)]


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
        list[Annotated[float, Field(gt=-1e30, lt=1e30)]], Field(min_length=1, max_length=CHANNELS), FailFast()
    ]
    std: Annotated[list[Annotated[float, Field(ge=LEAST, lt=1e30)]], Field(max_length=CHANNELS), FailFast()]

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
    """One unit: NAME.safetensors of so many recordings, frames and bytes."""

    recordings: Count
    frames: Count
    bytes: Count


class Index(CorpusIndex, _Statistics):
    """The units, their splits, and the statistics of their latents."""

    format: Literal["codec-latents"]
    version: Literal[1]
    units: Annotated[list[Entry], Field(min_length=1, max_length=UNITS), FailFast()]

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
