"""What a folder of shards says about itself, and what of it is believed.

index.json      format, version, `shards` (a list of the facts below) and `splits` (train, val, test: which shards)
NAME.tar        WebDataset's layout: KEY.flac and KEY.json (file, speaker, text, phones) of each recording
NAME.entries    safetensors: `place` [n, 4] int64, of each recording its first byte in the tar and its size there, its
                frames and its rate in Hz; the facts of the shard as metadata

An index may come from anywhere: names stay inside the folder, numbers within bounds, and nothing is executed.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from codec.data.base import CorpusError
from codec.data.index_schema import listed
from codec.data.remote_files import RemoteFolder
from codec.utils.safe_io import UntrustedFileError, parse_json

FORMAT, VERSION = "codec-shards", 1
INDEX = "index.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
DIGEST = re.compile(r"[0-9a-f]{64}")
SHARDS = 200_000  # at most, in an index; 280 bytes of it are usual, 1 kB in memory
RECORDINGS = 1_000_000  # in a shard
RECORDING = 2**30  # bytes of a recording
SHARD = 2**40  # bytes of a shard
INDEX_BYTES = 2**26
SECONDS = 1e6  # of a shard: what a window of shards may cost in memory hangs on it
FRAMES = 2**40
RATES = 100, 1_000_000  # Hz


@dataclass(frozen=True)
class Shard:
    """One shard: `bytes` and `sha256` of NAME.tar, `entries` the sha256 of NAME.entries."""

    name: str
    recordings: int
    seconds: float
    bytes: int
    sha256: str
    entries: str


@dataclass(frozen=True)
class Index:
    """`splits` maps train, val and test to the numbers of their shards, in order."""

    shards: list[Shard]
    splits: dict[str, list[int]]

    def dump(self) -> bytes:
        shards = [dataclasses.asdict(shard) for shard in self.shards]
        content = {"format": FORMAT, "version": VERSION, "splits": self.splits, "shards": shards}
        return (json.dumps(content, indent=0) + "\n").encode()


def load_index(store: RemoteFolder) -> Index:
    """The checked index of a folder of shards. Raises CorpusError."""
    where = f"{store.label}/{INDEX}"
    try:
        content = parse_json(store.read(INDEX, INDEX_BYTES))
    except UntrustedFileError as error:
        raise CorpusError(f"{where} is no index of shards ({error}): pack the corpus again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CorpusError(f"{where} is no index of shards: its format is not {FORMAT}.")
    if content.get("version") != VERSION:
        raise CorpusError(f"{where} has version {content.get('version')!r:.20}, this program reads {VERSION}.")
    return Index(*listed(content, where, "shard", SHARDS, _shard))


def save_entries(place: np.ndarray, facts: dict[str, str]) -> bytes:
    """The content of NAME.entries for `place` [n, 4]."""
    return save({"place": np.ascontiguousarray(place, np.int64).reshape(-1, 4)}, facts)


def load_entries(content: bytes, shard: Shard, where: str) -> np.ndarray:
    """`place` [n, 4] of a shard, checked against what the index says. Raises CorpusError."""
    try:
        place = load(content)["place"]
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError):
        raise CorpusError(f"{where} is damaged: pack the corpus again.") from None
    if place.dtype != np.int64 or place.shape != (shard.recordings, 4):
        raise CorpusError(f"{where} does not list the {shard.recordings} recordings that the index counts.")
    first, size, frames, rates = place.T
    inside = (first >= 0) & (size > 0) & (size <= RECORDING) & (first <= shard.bytes) & (size <= shard.bytes - first)
    sound = (frames > 0) & (frames <= FRAMES) & (rates >= RATES[0]) & (rates <= RATES[1])
    if not (inside & sound).all():
        number = int(np.flatnonzero(~(inside & sound))[0])
        raise CorpusError(f"{where} places recording {number} outside its shard, or gives it an impossible length.")
    if abs(seconds(place) - shard.seconds) > 1:
        raise CorpusError(f"{where} has recordings of {seconds(place)} s, where the index says {shard.seconds} s.")
    return place


def entries_bytes(shard: Shard) -> int:
    """NAME.entries is no longer than this."""
    return 32 * shard.recordings + 2**20


def _shard(content: Any, where: str) -> Shard:
    names = [field.name for field in dataclasses.fields(Shard)]
    if not isinstance(content, dict) or set(content) != set(names):
        raise CorpusError(f"{where} must say of each shard: {', '.join(names)}.")
    shard = Shard(**content)
    if not isinstance(shard.name, str) or not NAME.fullmatch(shard.name):
        raise CorpusError(f"{where} names a shard {shard.name!r:.80}: letters, digits, - and _ only, no folders.")
    counts = (shard.recordings, RECORDINGS), (shard.bytes, SHARD)
    if not all(type(value) is int and 0 < value <= most for value, most in counts):
        raise CorpusError(f"{where} gives {shard.name} an impossible number of recordings or bytes.")
    if type(shard.seconds) not in (int, float) or not 0 < shard.seconds <= SECONDS:
        raise CorpusError(f"{where} gives {shard.name} an impossible duration.")
    if not all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in (shard.sha256, shard.entries)):
        raise CorpusError(f"{where} gives {shard.name} no sha256.")
    return shard


def seconds(place: np.ndarray) -> float:
    """Duration of all recordings of `place` [n, 4]."""
    return round(float((place[:, 2] / place[:, 3]).sum()), 3)
