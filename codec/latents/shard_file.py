"""The shard file of an encoded corpus: matrices ``[C, F]`` of many recordings, and their texts and phones.

Safetensors: one tensor ``[C, total frames]``, the recordings concatenated; ``ends`` ``[n]`` int64, the end of each in
frames; ``lengths`` ``[n]`` int64, of each in samples; and as metadata ``about``, a JSON object: format, version, facts
of the codec (``model`` or ``fingerprint``, ``sample_rate`` in Hz, ``hop_length`` in samples, ...),
``recordings`` (file, speaker, text, phones of each), ``unreadable``, and ``checksum``: BLAKE2b-128 of all else, as
JSON, and of the bytes of all tensors in the order of their names. The file is untrusted: all of it is validated.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from codec.data.base import CorpusError
from codec.utils.errors import InputError, first_line
from codec.utils.safe_io import Schema, parse_as, parse_json

ENDING = ".safetensors"
OPEN_FILES = 32  # at most, because the header of each is in memory
METADATA = ("file", "speaker", "text", "phones")  # of each recording
Rate = Annotated[int, Field(gt=0, lt=2**31)]


class ShardFileError(InputError):
    """The file is missing, damaged, or of another kind."""


@dataclass(frozen=True)
class Layout:
    """A kind of shard file.

    Attributes:
        tensor, dtype: name of the matrix, and its type in the notation of safetensors.
        what: name of the content, for messages.
        source: key of the metadata that identifies the codec or teacher.
    """

    format: str
    version: int
    tensor: str
    dtype: str
    what: str
    source: str


class _Recording(Schema):
    file: str
    speaker: str
    text: str
    phones: str


class _Header(Schema):
    format: str
    version: int
    sample_rate: Rate
    hop_length: Rate
    recordings: list[_Recording]
    unreadable: list
    checksum: str


def write_shard(
    file: BinaryIO,
    layout: Layout,
    matrix: np.ndarray,
    lengths: Sequence[int],
    recordings: Sequence[Mapping[str, str]],
    unreadable: Sequence[tuple[str, str]],
    facts: Mapping[str, Any],
    extra: Mapping[str, np.ndarray],
) -> None:
    """Write a shard file: ``matrix`` ``[C, total frames]`` of recordings of ``lengths`` samples, ``extra`` tensors."""
    ends = np.cumsum([-(-length // facts["hop_length"]) for length in lengths], dtype=np.int64)
    tensors = {layout.tensor: np.ascontiguousarray(matrix), "ends": ends, "lengths": np.array(lengths, np.int64)}
    tensors |= extra
    about = {"format": layout.format, "version": layout.version, **facts}
    about |= {"recordings": list(recordings), "unreadable": [list(pair) for pair in unreadable]}
    about["checksum"] = checksum(about, tensors)
    file.write(save(tensors, {"about": json.dumps(about)}))


def checksum(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]))
    return digest.hexdigest()


class ShardFile:
    """An open shard file, whose matrix is read in slices. Raises ShardFileError if its header is invalid.

    Attributes:
        facts: the JSON object ``about``.
        recordings: file, speaker, text and phones of each recording.
        ends, lengths: ``[n]`` int64: the end of each recording in frames, its length in samples.
        channels, frames: shape of the matrix.
        size: of the file, in bytes.
    """

    def __init__(self, path: Path, layout: Layout):
        self.path, self.layout = path, layout
        try:
            self.size = path.stat().st_size
            self._file = safe_open(path, framework="np")
            self.facts: dict[str, Any] = parse_json((self._file.metadata() or {})["about"])
            header = parse_as(_Header, self.facts, "its header")
            self.recordings: list[dict[str, str]] = self.facts["recordings"]
            self.ends, self.lengths = (self._file.get_tensor(name) for name in ("ends", "lengths"))
            matrix = self._file.get_slice(layout.tensor)
            shape, dtype = matrix.get_shape(), matrix.get_dtype()
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise ShardFileError(f"{path} is no file of {layout.what}, or it is damaged: {first_line(error)}") from None
        found = header.format, header.version, dtype, len(shape), type(self.facts.get(layout.source))
        wanted = layout.format, layout.version, layout.dtype, 2, str
        if found != wanted or not shape[0] or not self._consistent(header, shape[1]):
            raise ShardFileError(f"{path} is damaged, or of another version: its {layout.tensor} and header disagree")
        self.channels, self.frames = shape

    def _consistent(self, header: _Header, frames: int) -> bool:
        ends, lengths = self.ends, self.lengths
        if not ends.dtype == lengths.dtype == np.int64 or ends.shape != (len(header.recordings),):
            return False
        if ends.shape != lengths.shape or not ((lengths > 0) & (lengths < 2**48)).all():
            return False
        return np.array_equal(np.cumsum(-(-lengths // header.hop_length)), ends) and frames == sum(ends[-1:])

    def __len__(self) -> int:
        return len(self.ends)

    def span(self, i: int) -> tuple[int, int]:
        """First frame of recording i in the matrix, and the frame after its last."""
        return int(self.ends[i - 1]) if i else 0, int(self.ends[i])

    def read(self, first: int, end: int) -> np.ndarray:
        """Frames ``first`` to ``end`` of the matrix, ``[C, end - first]``. Raises ShardFileError."""
        with self._readable():
            return self._file.get_slice(self.layout.tensor)[:, first:end]

    def tensor(self, name: str) -> np.ndarray:
        """One of the ``extra`` tensors. Raises ShardFileError."""
        with self._readable():
            return self._file.get_tensor(name)

    def check(self) -> None:
        """Read the whole file. Raises ShardFileError if its checksum differs."""
        with self._readable():
            tensors = {name: self._file.get_tensor(name) for name in self._file.keys()}  # noqa: SIM118
        about = {name: value for name, value in self.facts.items() if name != "checksum"}
        if self.facts["checksum"] != checksum(about, tensors):
            raise ShardFileError(f"{self.path} is damaged: its checksum does not agree")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise ShardFileError(f"{self.path} is damaged: {first_line(error)}") from None


class OpenShards:
    """A cache of at most 32 open shard files of one layout, by path; pickled without them."""

    def __init__(self, layout: Layout, advice: str):
        self.layout, self.advice = layout, advice
        self._open: dict[Path, ShardFile] = {}

    def __call__(self, path: Path) -> ShardFile:
        """The open file. Raises CorpusError, with the advice, if it is missing, damaged or of another layout."""
        if path not in self._open:
            with corpus_errors(self.advice):
                shard = ShardFile(path, self.layout)
            if len(self._open) >= OPEN_FILES:
                del self._open[next(iter(self._open))]
            self._open[path] = shard
        return self._open[path]

    def __len__(self) -> int:
        return len(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}


@contextmanager
def corpus_errors(advice: str = "remove it and extract again") -> Iterator[None]:
    """Convert a ShardFileError to a CorpusError with advice for the user."""
    try:
        yield
    except ShardFileError as error:
        raise CorpusError(f"{error}; {advice}.") from None
