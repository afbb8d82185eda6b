"""Encode a corpus, by as many processes as there are: unit i (codec/data/work_units.py) belongs to process i mod world.

Nobody waits for anybody: a unit's file appears whole, what is there is not made again, and any process may be killed
and started again anywhere. The same units and the same codec on the same kind of machine give the same bytes.

A unit's file is NAME.safetensors (codec/latents/shard_file.py). What is in it is an :class:`Encoding`: tokens, here,
``codes`` ``[K, F]`` uint16 with what a token file says of the codec (codec/latents/token_file.py); or latents
(codec/latents/export.py).
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import CorpusError
from codec.data.read_errors import ReadErrors, check_share
from codec.data.shard_writer import check_plan
from codec.data.work_units import WorkUnits
from codec.latents.shard_file import ENDING, KNOWN, Layout, UnitError, UnitFile, write_unit
from codec.latents.token_file import TokenError, Tokens, codebooks, fingerprint, weights_fingerprint
from codec.model import Codec
from codec.utils.atomic import atomic_file, write_atomic

INDEX = "index.json"
FACTS = ("recordings", "unreadable", "frames", "seconds")  # of each unit, in the index
TOKENS = Layout("codec-token-shards", 2, "codes", "U16", "tokens", "model")


class Encoding(ABC):
    """What is made of a recording: a matrix ``[C, F]``. Made of a codec before `for_inference`, which changes weights.

    Attributes:
        network: what makes it, on its device.
        facts: of what makes it, ``sample_rate`` and ``hop_length`` among them; in every unit and in the index.
        empty: ``[C, 0]``, what is made of nothing.
        size: of what is made, in words.
    """

    layout: Layout
    network: nn.Module
    facts: dict[str, Any]
    empty: np.ndarray
    size: str

    @abstractmethod
    def make(self, wav: Tensor) -> np.ndarray:
        """wav ``[1, 1, T]`` -> ``[C, F]``. Raises ValueError where the codec is not for this."""

    @abstractmethod
    def plan(self, units: WorkUnits) -> dict[str, Any]:
        """What decides the content of the units: a folder is for one such thing.

        Raises CorpusError if the corpus will not do.
        """

    def more(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """``[C, frames of a unit]`` -> further tensors of its file."""
        return {}

    def gather(self, unit: UnitFile) -> Any:
        """What :meth:`summary` needs of a unit. Raises UnitError if it is damaged."""
        return None

    def summary(self, train: list[Any]) -> dict[str, Any]:
        """What was gathered from the units for training -> what else the index says."""
        return {}


class ToTokens(Encoding):
    """Tokens of the first ``n_q`` codebooks (None: all).

    Raises:
        ValueError: if there are fewer, or none.
    """

    layout = TOKENS

    def __init__(self, codec: Codec, n_q: int | None = None):
        self.network = self.codec = codec
        self.n_q = codebooks(codec.quantizer, n_q)
        self.facts = {"model": fingerprint(codec.quantizer, self.n_q), "sample_rate": codec.sample_rate}
        self.facts |= {"hop_length": codec.hop_length, "n_q": self.n_q}
        self.empty, self.size = np.zeros((self.n_q, 0), np.uint16), f"{self.n_q} codebooks"
        self.weights = weights_fingerprint(codec.encoder)

    def plan(self, units: WorkUnits) -> dict[str, Any]:
        # with other weights the same codebooks give other codes
        return {"corpus": units.digest, "tokens": TOKENS.version, "weights": self.weights, **self.facts}

    def make(self, wav: Tensor) -> np.ndarray:
        """Raises ValueError if a codebook has more than 65,536 entries."""
        found = self.codec.encode(wav, self.n_q)[0].cpu().numpy()
        if found.size and not 0 <= int(found.min()) <= int(found.max()) < 2**16:
            raise ValueError("files of tokens hold codes from 0 to 65,535")
        return found.astype(np.uint16)


def extract(
    encoding: Encoding,
    units: WorkUnits,
    folder: Path,
    part: tuple[int, int] = (0, 1),
    report: Callable[[str], None] = print,
) -> dict | None:
    """Write the units of process ``part`` (index, count) that are not there -> the index, None while some are missing.

    Raises:
        CorpusError: if the folder holds something else, of another corpus or codec, or too much cannot be read.
        ValueError: if the codec is not for this.
    """
    check_plan(folder, encoding.plan(units))
    ledger = ReadErrors(units.size)
    ledger.add(units.bad)
    todo = [u for u in range(part[0], len(units.names), part[1]) if not (folder / (units.names[u] + ENDING)).is_file()]
    for done, unit in enumerate(todo, start=1):
        skipped, heard = _write(encoding, units, unit, folder)
        ledger.add(skipped, heard)
        report(f"{units.names[unit]}: {done} of {len(todo)} units made")
    paths = [folder / (name + ENDING) for name in units.names]
    if not all(path.is_file() for path in paths):
        return None
    found = [_entry(path, encoding) for path in paths]
    entries = [entry for entry, _ in found]
    good, bad = (sum(entry[fact] for entry in entries) for fact in FACTS[:2])
    check_share(len(units.bad) + bad, units.size, len(units.bad) + bad + good)  # of all processes and calls
    layout = encoding.layout
    index = {"format": layout.format, "version": layout.version, **encoding.facts, "splits": units.splits}
    index |= encoding.summary([found[i][1] for i in units.splits["train"]]) | {"units": entries}
    write_atomic(folder / INDEX, (json.dumps(index, indent=0) + "\n").encode())
    return index


@torch.inference_mode()
def _write(encoding: Encoding, units: WorkUnits, unit: int, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Write one unit -> (name, reason) of what could not be read, and the names of the others."""
    device = next(tensor.device for tensor in (*encoding.network.parameters(), *encoding.network.buffers()))
    matrices, lengths, about, skipped = [], [], [], []
    for recording in units.recordings(unit):
        try:
            if isinstance(recording, AudioError):
                raise recording
            wav = audio.read(recording.source, encoding.facts["sample_rate"], 0, None, recording.name)
        except AudioError as error:
            skipped.append((error.file, error.reason))
            continue
        matrices.append(encoding.make(torch.from_numpy(wav)[None, None].to(device)))
        lengths.append(len(wav))
        about.append({"file": recording.name} | {part: getattr(recording, part) for part in KNOWN[1:]})
    matrix = np.concatenate([encoding.empty, *matrices], axis=1)
    with atomic_file(folder / (units.names[unit] + ENDING)) as file:
        write_unit(file, encoding.layout, matrix, lengths, about, skipped, encoding.facts, encoding.more(matrix))
    return skipped, [recording["file"] for recording in about]


def read_unit(path: Path) -> Iterator[tuple[dict[str, str], Tokens]]:
    """({file, speaker, text, phones}, tokens) of each recording in a unit's file.

    Raises:
        TokenError: if it is missing, damaged or something else.
    """
    try:
        unit = UnitFile(path, TOKENS)
        unit.check()
        codes = unit.read(0, unit.frames)
        model = unit.facts["sample_rate"], unit.facts["hop_length"], unit.facts["model"]
    except UnitError as error:
        raise TokenError(str(error)) from None
    for i, known in enumerate(unit.recordings):
        first, end = unit.place(i)
        yield known, Tokens(torch.from_numpy(codes[:, first:end].astype(np.int64)), int(unit.lengths[i]), *model)


def _entry(path: Path, encoding: Encoding) -> tuple[dict[str, Any], Any]:
    """What the index says of a unit, and what `encoding` gathers from it."""
    try:
        unit = UnitFile(path, encoding.layout)
        unit.check()
        gathered = encoding.gather(unit)
    except UnitError as error:
        raise CorpusError(f"{error}; remove it and extract again.") from None
    seconds = round(int(unit.lengths.sum()) / unit.facts["sample_rate"], 3)
    counts = dict(zip(FACTS, (len(unit), len(unit.facts["unreadable"]), unit.frames, seconds), strict=True))
    content = path.read_bytes()
    name = path.name.removesuffix(ENDING)
    return {"name": name, **counts, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, gathered
