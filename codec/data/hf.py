"""Any dataset of the Hugging Face Hub, or a local one in a format its `datasets` library reads."""

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
from datasets import Audio, Dataset, IterableDataset, Value, load_dataset, load_dataset_builder

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording
from codec.data.hf_stream import HubStream
from codec.data.hub_retry import RETRIES, passing, pause, reason
from codec.data.indexed import IndexedCorpus, hold_out, in_turns
from codec.data.remote_files import shown
from codec.utils.cache import cache_dir, cache_key, load_json, save_json

MOST_BYTES = 2**30  # of one recording

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Which columns hold what, and how one row becomes a recording."""

    audio: str
    text: str | None = None
    speaker: str | None = None

    def names(self) -> list[str]:
        return [name for name in (self.audio, self.text, self.speaker) if name]

    def recording(self, row: Mapping[str, Any], place: str) -> Recording:
        """`place` says where the row is. The audio is bytes, a path, or a dict of both. Raises AudioError."""
        value = row[self.audio]
        if not isinstance(value, Mapping):
            value = {"bytes" if isinstance(value, bytes) else "path": value}
        path, data = value.get("path") or "", value.get("bytes")
        name = f"{place}:{shown(str(path)).rpartition('/')[2]}".rstrip(":")
        if not data and not path:
            raise AudioError(name, "has neither bytes nor a path")
        if not data:
            try:
                data = fetched(path, name)
            except AudioError as error:
                raise AudioError(name, shown(error.reason)) from None
        text, speaker = (str(row[c]) if c and row[c] is not None else "" for c in (self.text, self.speaker))
        return Recording(data, name, speaker, text)


def fetched(path: str, name: str) -> bytes:
    """The bytes of a file here or at an address. A network that fails is tried again, after 1, 2, 4, ... seconds.

    Raises AudioError if there is no such file, or it is larger than any recording.
    """
    for failures in itertools.count(1):
        try:
            with fsspec.open(path, "rb") as file:
                data = file.read(MOST_BYTES + 1)
        except (FileNotFoundError, PermissionError, IsADirectoryError, ValueError) as error:
            raise AudioError(name, f"cannot be opened ({error})") from None
        except Exception as error:  # of aiohttp's own kinds, among others
            if "://" not in path or failures > RETRIES:
                raise AudioError(name, f"cannot be opened ({reason(error)})") from None
            pause(error, failures)
        else:
            if len(data) > MOST_BYTES:
                raise AudioError(name, f"has more than {MOST_BYTES:,} bytes")
            return data


class HubTable(IndexedCorpus):
    """A map-style dataset. The share `holdout` is val and test alike, by speaker where a column names
    speakers.

    Durations are read from the files' headers once, which takes a pass over the data, and kept in the user's
    cache.
    """

    def __init__(self, dataset: Dataset, columns: Columns, sample_rate: int, name: str, holdout: float, seed: int):
        self.dataset = dataset
        self.columns = columns
        self.size = len(dataset)
        frames, rates, self.bad = self._index()
        self.numbers = np.flatnonzero(frames)
        if not len(self.numbers):
            raise CorpusError(f"none of the {self.size} rows of {name} can be read{_first(self.bad)}.")
        lengths = np.array([audio.length(int(frames[i]), int(rates[i]), sample_rate) for i in self.numbers], np.int64)
        speakers = list(dataset[columns.speaker]) if columns.speaker else [""] * self.size
        speakers = [str(speakers[i] or "") for i in self.numbers]
        names = [str(i) for i in self.numbers]
        mask = hold_out(names, speakers, holdout, seed)
        free, held = np.flatnonzero(~mask), in_turns(np.flatnonzero(mask), names, speakers)
        super().__init__(sample_rate, lengths, {"train": free, "val": held, "test": held})

    def recording(self, i: int) -> Recording:
        number = int(self.numbers[i])
        return self.columns.recording(self.dataset[number], f"row {number}")

    def _index(self) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
        """frames [rows], 0 where unreadable, rates [rows], and the (name, reason) of the unreadable."""
        cached = cache_dir() / "hub" / f"{cache_key(self.dataset._fingerprint, self.columns)}.json"
        index = load_json(cached)
        if len(index.get("frames", ())) != self.size:
            index = {"frames": [], "rates": [], "bad": []}
            for number, row in enumerate(self.dataset.select_columns(self.columns.audio)):
                frames, rate = 0, 1
                try:
                    recording = Columns(self.columns.audio).recording(row, f"row {number}")
                    frames, rate = audio.probe(recording.source, recording.name)
                except AudioError as error:
                    index["bad"].append((error.file, error.reason))
                index["frames"].append(frames)
                index["rates"].append(rate)
            save_json(cached, index)
        return (
            np.array(index["frames"]),
            np.array(index["rates"]),
            [(file, why) for file, why in index["bad"]],
        )


def open_hub(
    name: str,
    column: str,
    sample_rate: int,
    split: str = "train",
    config: str | None = None,
    streaming: bool = False,
    text_column: str | None = None,
    speaker_column: str | None = None,
    holdout: float = 0.05,
    held: int = 32,
    seed: int = 0,
) -> Corpus:
    """The corpus of a dataset by name on the Hub or path of a local folder.

    Args:
        column: of the audio: the library's Audio, a struct of bytes and path, bytes, or paths.
        split, config: as `load_dataset` calls them.
        streaming: read while training, nothing is stored; resumes in a new order. Else: download first, exact
            resume.
        holdout: share held out (not streaming). held: recordings held out from the start of a stream.

    A Hub that does not answer is asked again, after 1, 2, 4, ... seconds. Raises CorpusError if it still does not, or
    if the dataset or a column is not there. Code that comes with a dataset is never run.
    """
    columns = Columns(column, text_column, speaker_column)
    dataset = _load(name, config, split, streaming, columns)
    dataset = dataset.select_columns(columns.names())
    feature = (dataset.features or {}).get(column)
    if isinstance(feature, Audio) or (isinstance(feature, Value) and feature.dtype in ("string", "large_string")):
        dataset = dataset.cast_column(column, Audio(decode=False))
    if streaming:
        return HubStream(dataset, columns.recording, sample_rate, name, held, f"{config} {split} {columns}")
    return HubTable(dataset, columns, sample_rate, name, holdout, seed)


def _load(name: str, config: str | None, split: str, streaming: bool, columns: Columns) -> Dataset | IterableDataset:
    wanted = columns.names()
    for failures in itertools.count(1):
        try:
            dataset = load_dataset(name, config, split=split, streaming=streaming)
            there = dataset.column_names or list(next(iter(dataset), {}))
            builder = load_dataset_builder(name, config) if streaming and {*wanted} <= {*there} else None
            if builder and hasattr(builder.config, "columns"):
                # A parquet file then gives only these columns, few rows at a time.
                builder.config.columns, builder.config.batch_size = wanted, 16
                dataset = builder.as_streaming_dataset(split=split)
            break
        except Exception as error:  # of dozens of kinds, from the network to the parser: it is not to be had
            if failures > RETRIES or not passing(error):
                raise CorpusError(
                    f"cannot open the dataset {name!r} (config {config}, split {split}): {reason(error)}; check these "
                    "names and the network, or give the path of a local copy."
                ) from None
            log.warning("cannot open %s: %s; trying again", name, reason(error))
            pause(error, failures)
    for column in wanted:
        if column not in there:
            raise CorpusError(f"{name} has no column {column!r}; it has {', '.join(there) or 'no rows'}.")
    return dataset


def _first(bad: list[tuple[str, str]]) -> str:
    return f" ({bad[0][0]} {bad[0][1]})" if bad else ""
