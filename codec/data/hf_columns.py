"""Audio, text and speaker of a row of a Hugging Face dataset, in every shape that its `datasets` library stores."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import datasets
import fsspec
import numpy as np
import soundfile
from datasets import Audio, LargeList, List

from codec.data.audio import AudioError
from codec.data.base import Recording
from codec.data.remote_files import read_range
from codec.data.retry import is_transient, reason, retried

MOST_BYTES = 2**30  # of one recording
LONGEST_PATH = 4096  # characters: longer strings are no paths


@dataclass(frozen=True)
class Columns:
    """Names of the columns with audio, text and speaker; relative paths of audio are below `root`, a folder or URL."""

    audio: str
    text: str | None = None
    speaker: str | None = None
    root: str = ""

    def names(self) -> list[str]:
        return [name for name in (self.audio, self.text, self.speaker) if name]

    def recording(self, row: Mapping[str, Any], place: str) -> Recording:
        """Recording of a row, named `place`. Its audio is the bytes, path or URL of a file, a dict of these, a dict of
        `array` and `sampling_rate`, or a list of one of these. Raises AudioError."""
        value = row[self.audio]
        if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], int | float):
            value = value[0]
        if not isinstance(value, Mapping):
            value = {"path" if isinstance(value, str) else "bytes": value}
        path, data = str(value.get("path") or ""), value.get("bytes")
        name = f"{place}:{_file_name(path)}".rstrip(":")
        if not data and value.get("array") is not None:
            data = _wav(value["array"], value.get("sampling_rate"), name)
        if isinstance(data, list):
            raise AudioError(name, f"is a list of {len(data)}: store one file, or a dict of array and sampling_rate")
        if not (path and not data) and not (data and isinstance(data, bytes)):
            raise AudioError(name, f"has neither bytes nor a path but {type(data).__name__}")
        text, speaker = (as_text(row[c]) if c else "" for c in (self.text, self.speaker))
        return Recording(data or fetch(self._place_of(path, name), name), name, speaker, text)

    def _place_of(self, path: str, name: str) -> str:
        if len(path) > LONGEST_PATH or "\0" in path:
            raise AudioError(name, f"has a text of {len(path)} characters where a path was expected")
        if not self.root or "://" in path or os.path.isabs(path) or os.path.exists(path):
            return path
        return f"{self.root}/{path}"


def as_text(value: Any) -> str:
    """A cell as text, "" for a missing one: None, or pandas' NaN."""
    return "" if value is None or value != value else str(value).strip()


def _wav(array: Any, rate: Any, name: str) -> bytes:
    """WAV file of samples [T], [C, T] or [T, C]; whole numbers are of 16 bits. Raises AudioError."""
    file = io.BytesIO()
    try:
        wav = np.atleast_2d(np.asarray(array))
        wav = wav / 32768 if wav.dtype.kind in "iu" else wav.astype(np.float32)
        soundfile.write(file, wav.T if wav.shape[0] < wav.shape[1] else wav, rate, format="WAV", subtype="FLOAT")
    except (ValueError, TypeError, soundfile.LibsndfileError) as error:
        raise AudioError(name, f"has an array that is no waveform ({reason(error)})") from None
    return file.getvalue()


def _file_name(path: str) -> str:
    path = path.partition("?")[0].partition("#")[0] if "://" in path else path
    return path.rpartition("/")[2]


def fetch(path: str, name: str) -> bytes:
    """Read a local file, or one at a URL, with retries for a minute if its server answers. Raises AudioError."""

    def passes(error: BaseException) -> bool:  # not where nobody listens: one row of many, which is skipped
        return "://" in path and is_transient(error) and not isinstance(error, aiohttp.ClientConnectorError)

    def read() -> bytes:
        return read_range(*fsspec.core.url_to_fs(path), 0, MOST_BYTES + 1)

    try:
        data = retried(read, name, passes)
    except Exception as error:  # of aiohttp's own classes, among others
        raise AudioError(name, f"cannot be opened ({reason(error)})") from None
    if len(data) > MOST_BYTES:
        raise AudioError(name, f"has more than {MOST_BYTES:,} bytes")
    return data


def undecoded(feature: Any) -> Any:
    """A feature of `datasets` with `Audio(decode=False)` in place of Audio, at any depth of lists."""
    if isinstance(feature, Audio):
        return Audio(decode=False)
    return type(feature)(undecoded(feature.feature)) if isinstance(feature, List | LargeList) else feature


def store_files_without_torchcodec() -> None:
    """Let `datasets`, in this process and its workers, store audio files as they are: its audio folders and WebDatasets
    ask for an encoder, and use none."""
    if not datasets.config.TORCHCODEC_AVAILABLE:
        Audio.encode_example = _stored


_encode = Audio.encode_example


def _stored(self: Audio, value: Any) -> dict[str, Any]:
    if isinstance(value, str | Path | bytes):
        value = {"bytes": value} if isinstance(value, bytes) else {"path": str(value)}
    if isinstance(value, dict) and value.get("array") is None:
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    return _encode(self, value)
