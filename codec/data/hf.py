"""Corpora from datasets of the Hugging Face Hub, or from local ones that its `datasets` library reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import datasets
import fsspec
import numpy as np
from datasets import Audio, Dataset, IterableDataset, Value, load_dataset, load_dataset_builder
from huggingface_hub import constants
from huggingface_hub.utils import httpx

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording
from codec.data.hf_stream import HubStream, limit_timeouts
from codec.data.indexed import IndexedCorpus, hold_out, interleave_speakers
from codec.data.remote_files import read_range
from codec.data.retry import causes, is_refused, reason, retried, status_of
from codec.utils.cache import cache_dir, cache_key, load_json, save_json

MOST_BYTES = 2**30  # of one recording
# no host, or nobody listening: one row of many, which is skipped
PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, ValueError, aiohttp.ClientConnectorError)


@dataclass(frozen=True)
class Columns:
    """Names of the columns with audio, text and speaker."""

    audio: str
    text: str | None = None
    speaker: str | None = None

    def names(self) -> list[str]:
        return [name for name in (self.audio, self.text, self.speaker) if name]

    def recording(self, row: Mapping[str, Any], place: str) -> Recording:
        """Recording of a row, named `place`; audio is bytes, a path or URL, or a dict of both. Raises AudioError."""
        value = row[self.audio]
        if not isinstance(value, Mapping):
            value = {"bytes" if isinstance(value, bytes) else "path": value}
        path, data = str(value.get("path") or ""), value.get("bytes")
        name = f"{place}:{_file_name(path)}".rstrip(":")
        if not data and not path:
            raise AudioError(name, "has neither bytes nor a path")
        text, speaker = (str(row[c]) if c and row[c] is not None else "" for c in (self.text, self.speaker))
        return Recording(data or fetch(path, name), name, speaker, text)


def _file_name(path: str) -> str:
    path = path.partition("?")[0].partition("#")[0] if "://" in path else path
    return path.rpartition("/")[2]


def fetch(path: str, name: str) -> bytes:
    """Read a local file, or one at a URL, with retries for a minute if its server answers. Raises AudioError."""

    def read() -> bytes:
        return read_range(*fsspec.core.url_to_fs(path), 0, MOST_BYTES + 1)

    try:
        data = retried(read, name, lambda error: "://" not in path or isinstance(error, PERMANENT) or is_refused(error))
    except Exception as error:  # of aiohttp's own classes, among others
        raise AudioError(name, f"cannot be opened ({reason(error)})") from None
    if len(data) > MOST_BYTES:
        raise AudioError(name, f"has more than {MOST_BYTES:,} bytes")
    return data


class HubTable(IndexedCorpus):
    """Downloaded Hub dataset; the share `holdout` is both val and test, by speaker if a column has speakers. Durations
    are read from the headers of the files in one pass, and cached."""

    def __init__(self, dataset: Dataset, columns: Columns, sample_rate: int, name: str, holdout: float, seed: int):
        self.dataset, self.columns, self.size = dataset, columns, len(dataset)
        headers = self._headers()
        self.bad = [(file, reason) for _, _, file, reason in headers if reason]
        self.rows = [row for row, (frames, _, _, _) in enumerate(headers) if frames]
        if not self.rows:
            example = " ".join(self.bad[0]) if self.bad else "it is empty"
            raise CorpusError(f"none of the {self.size} rows of {name} can be read ({example}).")
        lengths = np.array([audio.length(*headers[row][:2], sample_rate) for row in self.rows], np.int64)
        self.upsampled = sum(headers[row][1] < sample_rate for row in self.rows)
        speakers = list(dataset[columns.speaker]) if columns.speaker else [""] * self.size
        speakers = [str(speakers[i] or "") for i in self.rows]
        names = [str(i) for i in self.rows]
        mask = hold_out(names, speakers, holdout, seed)
        train, held_out = np.flatnonzero(~mask), interleave_speakers(np.flatnonzero(mask), names, speakers)
        super().__init__(sample_rate, lengths, {"train": train, "val": held_out, "test": held_out})

    def recording(self, i: int) -> Recording:
        row = self.rows[i]
        return self.columns.recording(self.dataset[row], f"row {row}")

    def _headers(self) -> list[tuple[int, int, str, str]]:
        """(frames, rate in Hz, name, "") of each row, or (0, 1, name, reason) of an unreadable one."""
        files = [file["filename"] for file in self.dataset.cache_files]  # their paths contain a hash of the content
        cached = cache_dir() / "hub" / f"{cache_key(files, self.dataset.split, self.columns)}.json"
        headers = load_json(cached).get("headers", ()) if files else ()  # a dataset in memory has no files
        if len(headers) != self.size:
            headers = []
            for number, row in enumerate(self.dataset.select_columns(self.columns.audio)):
                try:
                    recording = Columns(self.columns.audio).recording(row, f"row {number}")
                    headers.append((*audio.probe(recording.source, recording.name), recording.name, ""))
                except AudioError as error:
                    headers.append((0, 1, error.file, error.reason))
            if files:
                save_json(cached, {"headers": headers})
        return headers


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
    """Open a dataset, by its name on the Hub or the path of a local folder; code that comes with it is never run.

    Args:
        column: of the audio: the library's Audio, a struct of bytes and path, bytes, or paths.
        split, config: as in `load_dataset`.
        streaming: read during training and store nothing; a resumed run continues in a new order. Otherwise the dataset
            is downloaded, and resuming is exact.
        holdout, held: share held out (downloaded); number of recordings held out from the start (streaming).

    Retries for a minute. Raises CorpusError if the Hub still fails, or the dataset or a column does not exist.
    """
    columns = Columns(column, text_column, speaker_column)
    dataset = _load(name, config, split, streaming, columns).select_columns(columns.names())
    feature = (dataset.features or {}).get(column)
    if isinstance(feature, Audio) or (isinstance(feature, Value) and feature.dtype in ("string", "large_string")):
        dataset = dataset.cast_column(column, Audio(decode=False))
    if streaming:
        return HubStream(dataset, columns.recording, sample_rate, name, held, f"{config} {split} {columns}")
    return HubTable(dataset, columns, sample_rate, name, holdout, seed)


def _load(name: str, config: str | None, split: str, streaming: bool, columns: Columns) -> Dataset | IterableDataset:
    wanted = columns.names()

    def load() -> tuple[Dataset | IterableDataset, list[str]]:
        limit_timeouts()
        dataset = load_dataset(name, config, split=split, streaming=streaming)
        available = dataset.column_names or list(next(iter(dataset), {}))
        builder = load_dataset_builder(name, config) if streaming and {*wanted} <= {*available} else None
        if builder and hasattr(builder.config, "columns"):
            # Read only these columns of a parquet file, few rows at a time.
            builder.config.columns, builder.config.batch_size = wanted, 16
            dataset = builder.as_streaming_dataset(split=split)
        return dataset, available

    try:
        dataset, available = retried(load, f"dataset {name}", lambda error: not _is_transient(error))
    except Exception as error:  # of dozens of classes, from the network to the parser
        raise CorpusError(
            f"cannot open the dataset {name!r} (config {config}, split {split}): {reason(error)}; check these names "
            "and the network, or give the path of a local copy."
        ) from None
    if missing := [column for column in wanted if column not in available]:
        raise CorpusError(f"{name} has no column {missing[0]!r}; it has {', '.join(available) or 'no rows'}.")
    return dataset


def _is_transient(error: BaseException) -> bool:
    """Whether a connection or an overloaded server caused an error, which `datasets` may report as a missing file."""
    if constants.is_offline_mode() or datasets.config.HF_HUB_OFFLINE:
        return False
    lost = httpx.TransportError | ConnectionError | TimeoutError
    return any(isinstance(one, lost) or status_of(one) in (408, 429) or status_of(one) >= 500 for one in causes(error))
