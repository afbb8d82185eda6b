"""File formats of a corpus in shards. Indices may be untrusted: names and numbers are bounded, nothing is executed.

index.json      format, version, `shards` (a list of the facts below) and `splits` (train, val, test: which shards)
NAME.tar        WebDataset's layout: KEY.flac and KEY.json (file, speaker, text, phones) of each recording
NAME.entries    safetensors: `place` [n, 4] int64, of each recording its first byte in the tar and its size there, its
                frames and its rate in Hz; `speaker` [n] int64, a number of its speaker, 0 if unknown (absent in older
                files); the facts of the shard as metadata
"""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import FailFast, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from codec.data.audio import RATES
from codec.data.base import CorpusError
from codec.data.index_schema import CorpusIndex, Part, Sha256, parse_index
from codec.data.remote_files import RemoteFolder
from codec.utils.cache import cache_key

INDEX = "index.json"
SHARDS = 200_000  # in an index, at most; each takes 280 bytes of it, and 1 kB in memory
RECORDINGS = 1_000_000  # in a shard, at most
RECORDING = 2**30  # bytes of a recording, at most
SECONDS = 1e6  # of a shard, at most: the memory of a window of shards depends on it
INDEX_BYTES = 2**26
FRAMES = 2**40  # of a recording, at most


class Shard(Part):
    """One shard: `bytes` and `sha256` of NAME.tar; `entries` is the sha256 of NAME.entries."""

    recordings: int = Field(gt=0, le=RECORDINGS)
    seconds: float = Field(gt=0, le=SECONDS)
    bytes: int = Field(gt=0, le=2**40)
    sha256: Sha256
    entries: Sha256


class Index(CorpusIndex):
    format: Literal["codec-shards"]
    version: Literal[1]
    shards: Annotated[list[Shard], Field(min_length=1, max_length=SHARDS), FailFast()]
    held_out_by: Literal["speaker", "file", "unknown"] = "unknown"

    @property
    def parts(self) -> list[Part]:
        return self.shards

    def dump(self) -> bytes:
        shards = [shard.model_dump() for shard in self.shards]
        content = {"format": self.format, "version": self.version, "splits": self.splits, "shards": shards}
        if self.held_out_by != "unknown":  # as packed by earlier versions
            content["held_out_by"] = self.held_out_by
        return (json.dumps(content, indent=0) + "\n").encode()


def load_index(folder: RemoteFolder) -> Index:
    """The validated index of a folder of shards. Raises CorpusError."""
    content = folder.read(INDEX, INDEX_BYTES)
    return parse_index(content, Index, f"{folder.label}/{INDEX}", "write shards with python -m codec pack")


def save_entries(place: np.ndarray, facts: dict[str, str], speakers: Sequence[str] = ()) -> bytes:
    """The content of NAME.entries for `place` [n, 4] and the speakers' names [n]."""
    numbers = [int(cache_key(speaker), 16) >> 1 if speaker else 0 for speaker in speakers]
    tensors = {"place": np.ascontiguousarray(place, np.int64).reshape(-1, 4)}
    return save(tensors | ({"speaker": np.array(numbers, np.int64)} if any(numbers) else {}), facts)


def load_entries(content: bytes, shard: Shard, where: str) -> np.ndarray:
    """Parse `place` and `speaker` of a shard, [n, 5] together, and check them against the index. Raises CorpusError."""
    try:
        tensors = load(content)
        place = tensors["place"]
        speaker = tensors.get("speaker", np.zeros(shard.recordings, np.int64))
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError):
        raise CorpusError(f"{where} is damaged: pack the corpus again.") from None
    shapes = place.shape, speaker.shape
    if not place.dtype == speaker.dtype == np.int64 or shapes != ((shard.recordings, 4), (shard.recordings,)):
        raise CorpusError(f"{where} does not list the {shard.recordings} recordings that the index counts.")
    first, size, frames, rates = place.T
    valid = (first >= 0) & (size > 0) & (size <= RECORDING) & (first <= shard.bytes) & (size <= shard.bytes - first)
    valid &= (frames > 0) & (frames <= FRAMES) & (rates >= RATES[0]) & (rates <= RATES[1])
    if not valid.all():
        number = int(np.flatnonzero(~valid)[0])
        raise CorpusError(f"{where} places recording {number} outside its shard, or gives it an impossible length.")
    if abs(seconds(place) - shard.seconds) > 1:
        raise CorpusError(f"{where} has recordings of {seconds(place)} s, where the index says {shard.seconds} s.")
    return np.column_stack([place, speaker])


def entries_bytes(shard: Shard) -> int:
    """Upper bound of the size of NAME.entries."""
    return 40 * shard.recordings + 2**20


def seconds(place: np.ndarray) -> float:
    """Total duration of the recordings in `place` [n, 4]."""
    return round(float((place[:, 2] / place[:, 3]).sum()), 3)
