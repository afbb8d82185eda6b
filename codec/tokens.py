"""The token file: what a recording is after encoding. Version 1.

A safetensors file with one tensor, ``codes`` ``[K, F]`` uint16, and metadata, all of it text:

format: ``codec-tokens``; version: ``1``
model: fingerprint of the quantizer that made the codes and alone can read them (hexadecimal)
sample_rate, hop_length: of the codec, in Hz and samples; length: of the recording in samples at that rate
checksum: BLAKE2b-128 of the codes' bytes (hexadecimal)
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

FORMAT, VERSION = "codec-tokens", "1"


class TokenError(ValueError):
    """The file is not one of tokens that this model can read; the message says why."""


@dataclass(frozen=True)
class Tokens:
    """codes ``[K, F]`` int64; ``length`` in samples at ``sample_rate`` (Hz); ``model`` is :func:`fingerprint`'s."""

    codes: Tensor
    length: int
    sample_rate: int
    hop_length: int
    model: str


def fingerprint(quantizer: nn.Module) -> str:
    """Hexadecimal digest of all that gives codes their meaning: the quantizer's parameters and buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted([*quantizer.named_parameters(), *quantizer.named_buffers()]):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_tokens(path: str | Path, tokens: Tokens) -> None:
    """Raises ValueError for codes that 16 bits do not hold."""
    if tokens.codes.numel() and not 0 <= int(tokens.codes.min()) <= int(tokens.codes.max()) < 2**16:
        raise ValueError("a token file holds codes from 0 to 65,535")
    codes = np.ascontiguousarray(tokens.codes.cpu().numpy().astype(np.uint16))
    numbers = {"length": tokens.length, "sample_rate": tokens.sample_rate, "hop_length": tokens.hop_length}
    facts = {"format": FORMAT, "version": VERSION, "model": tokens.model, "checksum": _checksum(codes)}
    save_file({"codes": codes}, path, facts | {name: str(value) for name, value in numbers.items()})


def load_tokens(path: str | Path, model: str | None = None) -> Tokens:
    """Read a token file; ``model``: the fingerprint that it must have been made with.

    Raises:
        TokenError: if the file is missing, damaged, of something else, of another version, or of another model.
    """
    if not Path(path).is_file():
        raise TokenError(f"there is no token file at {path}")
    try:
        with safe_open(path, framework="np") as file:
            facts, codes = file.metadata() or {}, file.get_tensor("codes") if "codes" in set(file.keys()) else None
    except (SafetensorError, OSError) as error:
        raise TokenError(f"{path} is no token file, or it is damaged: {str(error).splitlines()[0][:200]}") from None
    if facts.get("format") != FORMAT or codes is None:
        raise TokenError(f"{path} is no token file of this project: its metadata do not say format={FORMAT}")
    if facts.get("version") != VERSION:
        raise TokenError(f"{path} is a token file of version {facts.get('version')}, and this program reads {VERSION}")
    try:
        length, rate, hop = (int(facts[name]) for name in ("length", "sample_rate", "hop_length"))
        fits = codes.ndim == 2 and codes.dtype == np.uint16 and hop > 0 and codes.shape[1] == -(-length // hop)
        intact = fits and facts["checksum"] == _checksum(codes)
    except (KeyError, ValueError):
        intact = False
    if not intact:
        raise TokenError(f"{path} is damaged: its codes and what it says about them do not agree")
    if model not in (None, facts.get("model")):
        raise TokenError(f"{path} was made by another model: decode it with the checkpoint that encoded it")
    return Tokens(torch.from_numpy(codes.astype(np.int64)), length, rate, hop, facts.get("model", ""))


def _checksum(codes: np.ndarray) -> str:
    return hashlib.blake2b(codes.tobytes(), digest_size=16).hexdigest()
