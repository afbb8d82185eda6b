"""Extraction of tokens, latents or teacher features of a corpus, by independent processes.

Process i mod world size writes the shard file of work unit i, atomically; files that exist are not computed again, so
that processes may be killed and restarted. The same units, codec and kind of machine give the same bytes.
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
from codec.data.read_errors import ReadErrors, check_share
from codec.data.work_units import WorkUnits, check_plan
from codec.latents.shard_file import ENDING, METADATA, Layout, ShardFile, ShardFileError, corpus_errors, write_shard
from codec.latents.token_file import TokenError, Tokens, checked_n_q, codebook_fingerprint, weights_fingerprint
from codec.model import Codec
from codec.utils.atomic import atomic_file, write_atomic

INDEX = "index.json"
COUNTS = ("recordings", "unreadable", "frames", "seconds")  # of each unit, in the index
TOKENS = Layout("codec-token-shards", 2, "codes", "U16", "tokens", "model")


class Extractor(ABC):
    """A network that computes a matrix ``[C, F]`` of a recording. A codec must not be in its form for inference yet.

    Attributes:
        network: the codec or teacher.
        facts: metadata of every shard file and of the index: ``sample_rate`` (Hz), ``hop_length`` (samples), and more.
        empty: ``[C, 0]``, the matrix of no recording.
        size: C in words, as "8 codebooks".
    """

    layout: Layout
    network: nn.Module
    facts: dict[str, Any]
    empty: np.ndarray
    size: str

    def prepare(self, device: str | torch.device) -> None:
        """Move the network to a device, and convert a codec to its form for inference."""
        self.network.to(device)
        if isinstance(self.network, Codec):
            self.network.for_inference()

    @abstractmethod
    def matrix(self, wav: Tensor) -> np.ndarray:
        """wav ``[1, 1, T]`` -> ``[C, F]``. Raises ValueError if a shard file cannot represent it."""

    @abstractmethod
    def plan(self, units: WorkUnits) -> dict[str, Any]:
        """Everything that determines the content of the files; one folder has files of one plan. Raises CorpusError."""

    def extra(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """``[C, frames of a unit]`` -> further tensors of its shard file."""
        return {}

    def gather(self, shard: ShardFile) -> Any:
        """The part of a file that :meth:`summary` needs. Raises ShardFileError if it is damaged."""
        return None

    def summary(self, train: list[Any]) -> dict[str, Any]:
        """The values that :meth:`gather` gave for the training files -> further entries of the index."""
        return {}


class TokenExtractor(Extractor):
    """Extraction of ``codes`` ``[K, F]`` uint16 of the first ``n_q`` codebooks (None: all). Raises ValueError if there
    are fewer, or none."""

    layout = TOKENS

    def __init__(self, codec: Codec, n_q: int | None = None):
        self.network = self.codec = codec
        self.n_q = checked_n_q(codec.quantizer, n_q)
        self.facts = {"model": codebook_fingerprint(codec.quantizer, self.n_q), "sample_rate": codec.sample_rate}
        self.facts |= {"hop_length": codec.hop_length, "n_q": self.n_q}
        self.empty, self.size = np.zeros((self.n_q, 0), np.uint16), f"{self.n_q} codebooks"
        self.weights = weights_fingerprint(codec.encoder)

    def plan(self, units: WorkUnits) -> dict[str, Any]:
        # codebooks alone do not determine the codes: the encoder does as well
        return {"corpus": units.digest, "tokens": TOKENS.version, "weights": self.weights, **self.facts}

    def matrix(self, wav: Tensor) -> np.ndarray:
        """Raises ValueError if a codebook has more than 65,536 entries."""
        codes = self.codec.encode(wav, self.n_q)[0].cpu().numpy()
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 2**16:
            raise ValueError("token files hold codes from 0 to 65,535")
        return codes.astype(np.uint16)


def extract(
    extractor: Extractor,
    units: WorkUnits,
    folder: Path,
    part: tuple[int, int] = (0, 1),
    report: Callable[[str], None] = print,
) -> dict | None:
    """Write the missing shard files of process ``part`` (rank, world size), and the index once all files exist.

    Returns the index, or None while files of other processes are missing. Raises CorpusError if the folder has files of
    another corpus or codec or too many recordings are unreadable, ValueError as :meth:`Extractor.matrix` does.
    """
    check_plan(folder, extractor.plan(units))
    errors = ReadErrors(units.size)
    errors.add(units.bad)
    todo = [u for u in range(part[0], len(units.names), part[1]) if not (folder / (units.names[u] + ENDING)).is_file()]
    for done, unit in enumerate(todo, start=1):
        errors.add(*_write(extractor, units, unit, folder))
        report(f"{units.names[unit]}: {done} of {len(todo)} units made")
    paths = [folder / (name + ENDING) for name in units.names]
    if not all(path.is_file() for path in paths):
        return None
    found = [_entry(path, extractor) for path in paths]
    entries = [entry for entry, _ in found]
    good, bad = (sum(entry[name] for entry in entries) for name in COUNTS[:2])
    check_share(len(units.bad) + bad, units.size, len(units.bad) + bad + good)  # of all processes and calls
    layout = extractor.layout
    index = {"format": layout.format, "version": layout.version, **extractor.facts, "splits": units.splits}
    index |= extractor.summary([found[i][1] for i in units.splits["train"]]) | {"units": entries}
    write_atomic(folder / INDEX, json.dumps(index, indent=0) + "\n")
    return index


@torch.inference_mode()
def _write(extractor: Extractor, units: WorkUnits, unit: int, folder: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Write the file of one unit; return (name, reason) of unreadable recordings, and the names of the others."""
    device = next(tensor.device for tensor in (*extractor.network.parameters(), *extractor.network.buffers()))
    matrices, lengths, about, skipped = [], [], [], []
    for recording in units.recordings(unit):
        try:
            if isinstance(recording, AudioError):
                raise recording
            wav = audio.read(recording.source, extractor.facts["sample_rate"], 0, None, recording.name)
        except AudioError as error:
            skipped.append((error.file, error.reason))
            continue
        matrices.append(extractor.matrix(torch.from_numpy(wav)[None, None].to(device)))
        lengths.append(len(wav))
        about.append({"file": recording.name} | {part: getattr(recording, part) for part in METADATA[1:]})
    matrix = np.concatenate([extractor.empty, *matrices], axis=1)
    with atomic_file(folder / (units.names[unit] + ENDING)) as file:
        facts, extra = extractor.facts, extractor.extra(matrix)
        write_shard(file, extractor.layout, matrix, lengths, about, skipped, facts, extra)
    return skipped, [recording["file"] for recording in about]


def _entry(path: Path, extractor: Extractor) -> tuple[dict[str, Any], Any]:
    """The entry of a file in the index, and the result of `Extractor.gather`."""
    with corpus_errors():
        shard = ShardFile(path, extractor.layout)
        shard.check()
        gathered = extractor.gather(shard)
    seconds = round(int(shard.lengths.sum()) / shard.facts["sample_rate"], 3)
    counts = dict(zip(COUNTS, (len(shard), len(shard.facts["unreadable"]), shard.frames, seconds), strict=True))
    content = path.read_bytes()
    name = path.name.removesuffix(ENDING)
    return {"name": name, **counts, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, gathered


def read_token_shard(path: Path) -> Iterator[tuple[dict[str, str], Tokens]]:
    """({file, speaker, text, phones}, tokens) of each recording in a shard file of tokens. Raises TokenError."""
    try:
        shard = ShardFile(path, TOKENS)
        shard.check()
        codes = shard.read(0, shard.frames)
    except ShardFileError as error:
        raise TokenError(str(error)) from None
    model = shard.facts["sample_rate"], shard.facts["hop_length"], shard.facts["model"]
    for i, known in enumerate(shard.recordings):
        first, end = shard.span(i)
        yield known, Tokens(torch.from_numpy(codes[:, first:end].astype(np.int64)), int(shard.lengths[i]), *model)
