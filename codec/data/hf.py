"""Corpora from datasets of the Hugging Face Hub, or from local ones that its `datasets` library reads."""

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, IterableDataset, load_dataset, load_dataset_builder
from huggingface_hub import constants

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import Corpus, CorpusError, Recording
from codec.data.hf_columns import Columns, as_text, store_files_without_torchcodec, undecoded
from codec.data.hf_stream import HubStream, limit_timeouts
from codec.data.indexed import IndexedCorpus, split
from codec.data.retry import is_transient, reason, retried
from codec.utils.cache import cache_dir, cache_key, load_json, save_json


class HubTable(IndexedCorpus):
    """Downloaded Hub dataset; the share `holdout` is test, and as much val, by speaker if a column has speakers.
    Durations are read from the headers of the files in one pass, and cached."""

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
        speakers = list(dataset[columns.speaker]) if columns.speaker else [None] * self.size
        speakers = [as_text(speakers[i]) for i in self.rows]
        splits = split([str(i) for i in self.rows], speakers, holdout, seed)
        super().__init__(sample_rate, lengths, splits, speakers)

    def recording(self, i: int) -> Recording:
        row = self.rows[i]
        return self.columns.recording(self.dataset[row], f"row {row}")

    def _headers(self) -> list[tuple[int, int, str, str]]:
        """(frames, rate in Hz, name, "") of each row, or (0, 1, name, reason) of an unreadable one."""
        files = [file["filename"] for file in self.dataset.cache_files]  # their paths contain a hash of the content
        cached = cache_dir() / "hub" / f"{cache_key(files, self.dataset.split, self.columns, audio.LENGTHS)}.json"
        headers = load_json(cached).get("headers", ()) if files else ()  # a dataset in memory has no files
        if len(headers) != self.size:
            headers = []
            for number, row in enumerate(self.dataset.select_columns(self.columns.audio)):
                try:
                    recording = replace(self.columns, text=None, speaker=None).recording(row, f"row {number}")
                    headers.append((*audio.probe(recording.source, recording.name), recording.name, ""))
                except AudioError as error:
                    headers.append((0, 1, error.file, error.reason))
            if files and not any(header[3] for header in headers):  # an installation may mend what was unreadable
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
        column: of the audio, in any shape that `Columns.recording` reads; relative paths are within the dataset.
        split, config: as in `load_dataset`.
        streaming: read during training and store nothing; a resumed run continues in a new order. Otherwise the dataset
            is downloaded, and resuming is exact.
        holdout, held: share held out (downloaded); number of recordings held out from the start (streaming).

    Retries a connection or a busy server for a minute. Raises CorpusError if the Hub still fails, or the dataset or a
    column does not exist.
    """
    columns = Columns(column, text_column, speaker_column, name if Path(name).is_dir() else f"hf://datasets/{name}")
    dataset = _load(name, config, split, streaming, columns).select_columns(columns.names())
    feature = (dataset.features or {}).get(column)
    if undecoded(feature) != feature:
        dataset = dataset.cast_column(column, undecoded(feature))
    if streaming:
        return HubStream(dataset, columns.recording, sample_rate, name, held, f"{config} {split} {columns}")
    return HubTable(dataset, columns, sample_rate, name, holdout, seed)


def _load(name: str, config: str | None, split: str, streaming: bool, columns: Columns) -> Dataset | IterableDataset:
    wanted = columns.names()

    def load() -> tuple[Dataset | IterableDataset, list[str]]:
        limit_timeouts()
        store_files_without_torchcodec()
        datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # it prints whole schemas before it raises
        if any(Path(name, mark).is_file() for mark in ("state.json", "dataset_dict.json")):
            saved = datasets.load_from_disk(name)
            dataset = saved[split] if isinstance(saved, datasets.DatasetDict) else saved
            return dataset.to_iterable_dataset() if streaming else dataset, dataset.column_names
        dataset = load_dataset(name, config, split=split, streaming=streaming)
        available = dataset.column_names or list(next(iter(dataset), {}))
        builder = load_dataset_builder(name, config) if streaming and {*wanted} <= {*available} else None
        if builder and hasattr(builder.config, "columns"):
            # Read only these columns of a parquet file, few rows at a time.
            builder.config.columns, builder.config.batch_size = wanted, 16
            dataset = builder.as_streaming_dataset(split=split)
        return dataset, available

    try:
        # offline, `datasets` reports a missing file as a lost connection
        offline = constants.is_offline_mode() or datasets.config.HF_HUB_OFFLINE
        dataset, available = retried(load, f"dataset {name}", lambda error: not offline and is_transient(error))
    except Exception as error:  # of dozens of classes, from the network to the parser
        lost = not isinstance(error, datasets.exceptions.DatasetGenerationError) or is_transient(error)
        advice = "check these names and the network, or give the path of a local copy" if lost else "repair its files"
        raise CorpusError(
            f"cannot open the dataset {name!r} (config {config}, split {split}): {_fault(error)}; {advice}."
        ) from None
    if missing := [column for column in wanted if column not in available]:
        raise CorpusError(f"{name} has no column {missing[0]!r}; it has {', '.join(available) or 'no rows'}.")
    return dataset


def _fault(error: Exception) -> str:
    """What is wrong, which the error of a builder has in its cause."""
    if isinstance(error.__cause__, datasets.table.CastError):
        return "its files differ in their columns, or in the types of these"
    builder = isinstance(error, datasets.exceptions.DatasetGenerationError)
    return reason(error.__cause__ or error if builder else error)
