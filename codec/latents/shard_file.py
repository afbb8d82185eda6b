"""The file of a unit of a corpus that was encoded: matrices ``[C, F]`` of its recordings, and what is known of each.

Safetensors: the matrices one after another as one tensor ``[C, frames of all]``; ``ends`` ``[n]`` int64, where each
ends among the frames; ``lengths`` ``[n]`` int64, samples of each; and as metadata ``about``, JSON: format, version,
facts of the codec (``model`` or ``fingerprint``, ``sample_rate`` in Hz and ``hop_length`` in samples among them),
``recordings`` (file, speaker, text, phones of each), ``unreadable``, and ``checksum``: BLAKE2b-128 of all others, as
JSON, and of the bytes of all tensors in the order of their names (hexadecimal). It may come from anywhere: nothing is
executed, and what it says must fit what it holds.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from codec.utils.errors import InputError
from codec.utils.safe_io import parse_json

ENDING = ".safetensors"
KEPT = 32  # units that stay open: a header each, of what is known of their recordings
KNOWN = ("file", "speaker", "text", "phones")  # text, of each recording


class UnitError(InputError):
    """The file is missing, damaged, or something else; the message says which."""


@dataclass(frozen=True)
class Layout:
    """What such files hold: ``tensor`` is the name of the matrix, ``dtype`` what safetensors calls its numbers."""

    format: str
    version: int
    tensor: str
    dtype: str
    what: str  # in sentences
    codec: str  # the fact that says of which codec


def write_unit(
    file: BinaryIO,
    layout: Layout,
    matrix: np.ndarray,
    lengths: Sequence[int],
    recordings: Sequence[Mapping[str, str]],
    unreadable: Sequence[tuple[str, str]],
    facts: Mapping[str, Any],
    more: Mapping[str, np.ndarray],
) -> None:
    """Write ``matrix`` ``[C, frames of all]``, ``lengths`` (samples), what is known, and ``more`` tensors."""
    ends = np.cumsum([-(-length // facts["hop_length"]) for length in lengths], dtype=np.int64)
    tensors = {layout.tensor: np.ascontiguousarray(matrix), "ends": ends, "lengths": np.array(lengths, np.int64)}
    about = {"format": layout.format, "version": layout.version, **facts}
    about |= {"recordings": list(recordings), "unreadable": [list(pair) for pair in unreadable]}
    tensors |= more
    about["checksum"] = checksum_of(about, tensors)
    file.write(save(tensors, {"about": json.dumps(about)}))


def checksum_of(about: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """Of what is told and held, the checksum itself left out."""
    digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name]))
    return digest.hexdigest()


class OpenUnits:
    """Units of one layout by their paths, opened when asked for; few stay open, and none in a copy for a worker."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self._open: dict[Path, UnitFile] = {}

    def __call__(self, path: Path) -> "UnitFile":
        """Raises UnitError if it is missing, damaged or something else."""
        if path not in self._open:
            unit = UnitFile(path, self.layout)
            if len(self._open) >= KEPT:
                del self._open[next(iter(self._open))]
            self._open[path] = unit
        return self._open[path]

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}


class UnitFile:
    """An open unit: its header is checked and in memory, its matrix is read piece by piece.

    Attributes:
        facts: what it says of the codec and of itself.
        recordings: of each recording file, speaker, text and phones.
        ends: ``[n]`` int64, where each ends among the frames.
        lengths: ``[n]`` int64, samples of each.
        rows: channels C of the matrix.
        size: bytes of the file.

    Raises:
        UnitError: if it is missing, damaged or something else.
    """

    def __init__(self, path: Path, layout: Layout):
        self.path, self.layout = path, layout
        try:
            self.size = path.stat().st_size
            self._file = safe_open(path, framework="np")
            self.facts: dict[str, Any] = parse_json((self._file.metadata() or {})["about"])
            self.ends, self.lengths = (self._file.get_tensor(name) for name in ("ends", "lengths"))
            self.recordings: list[dict[str, str]] = self.facts["recordings"]
            matrix = self._file.get_slice(layout.tensor)
            fits = self._fits(matrix.get_shape(), matrix.get_dtype())
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError, ArithmeticError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise UnitError(f"{path} is no unit of {layout.what}, or it is damaged: {reason}") from None
        if not fits:
            raise UnitError(
                f"{path} is damaged, or of another version: its {layout.tensor} and what it says of them do not agree"
            )

    def _fits(self, shape: list[int], dtype: str) -> bool:
        told = self.facts["format"], self.facts["version"], dtype, len(shape)
        if told != (self.layout.format, self.layout.version, self.layout.dtype, 2) or not shape[0]:
            return False
        rate, hop = self.facts["sample_rate"], self.facts["hop_length"]
        if not all(type(value) is int and 0 < value < 2**31 for value in (rate, hop)):
            return False
        if not isinstance(self.recordings, list) or not isinstance(self.facts["unreadable"], list):
            return False
        texts = (known[part] for known in self.recordings for part in KNOWN)
        if not all(isinstance(text, str) for text in (*texts, self.facts["checksum"], self.facts[self.layout.codec])):
            return False
        self.rows, ends, lengths = shape[0], self.ends, self.lengths
        if not ends.dtype == lengths.dtype == np.int64 or ends.ndim != 1 or len(ends) != len(self.recordings):
            return False
        sound = bool((lengths > 0).all() and (lengths < 2**48).all()) and np.array_equal(
            np.cumsum(-(-lengths // hop)), ends
        )
        return sound and shape[1] == self.frames

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def frames(self) -> int:
        """Of all recordings together."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def place(self, i: int) -> tuple[int, int]:
        """(first, end) of recording i among the frames of all."""
        return int(self.ends[i - 1]) if i else 0, int(self.ends[i])

    def read(self, first: int, end: int) -> np.ndarray:
        """Frames first to end of all -> ``[C, end - first]``.

        Raises:
            UnitError: if they cannot be read any more.
        """
        try:
            return self._file.get_slice(self.layout.tensor)[:, first:end]
        except (OSError, SafetensorError) as error:
            raise UnitError(f"{self.path} cannot be read: {str(error).splitlines()[0][:200]}") from None

    def check(self) -> None:
        """Read all of it. Raises UnitError if a byte is not as it was written."""
        try:
            tensors = {name: self._file.get_tensor(name) for name in self._file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise UnitError(f"{self.path} cannot be read: {str(error).splitlines()[0][:200]}") from None
        about = {name: value for name, value in self.facts.items() if name != "checksum"}
        if self.facts["checksum"] != checksum_of(about, tensors):
            raise UnitError(f"{self.path} is damaged: its checksum does not agree")

    def tensor(self, name: str) -> np.ndarray:
        """One of ``more``. Raises UnitError if it is not there."""
        try:
            return self._file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise UnitError(f"{self.path} is damaged: {str(error).splitlines()[0][:200]}") from None
