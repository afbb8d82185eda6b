"""The token file, version 1: the codes of one recording. Safetensors: ``codes`` ``[K, F]`` uint16, and as metadata

format: ``codec-tokens``; version: ``1``; model: fingerprint of the codebooks (hexadecimal)
sample_rate (Hz), hop_length (samples): of the codec; length: of the recording in samples at that rate
checksum: BLAKE2b-128 of all of the above, a line each, and of the bytes of the codes (hexadecimal)
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from codec.quantizers.base import Quantizer
from codec.utils.atomic import write_atomic
from codec.utils.errors import InputError, first_line

FORMAT, VERSION = "codec-tokens", "1"


class TokenError(InputError):
    """A token file is damaged, foreign or missing, or cannot be written."""


@dataclass(frozen=True)
class Tokens:
    """Codes ``[K, F]`` int64 of ``length`` samples at ``sample_rate`` Hz; ``model`` is their `codebook_fingerprint`."""

    codes: Tensor
    length: int
    sample_rate: int
    hop_length: int
    model: str


def codebook_fingerprint(quantizer: Quantizer, n_q: int) -> str:
    """Hexadecimal digest of the state of the first ``n_q`` codebooks."""
    digest = hashlib.blake2b(digest_size=16)
    for value in quantizer.codebook_state(n_q):
        digest.update(str(tuple(value.shape)).encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights_fingerprint(module: nn.Module) -> str:
    """Hexadecimal digest of the names, shapes and values of a state_dict."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def checked_n_q(quantizer: Quantizer, n_q: int | None) -> int:
    """``n_q``, or for None the number of codebooks. Raises ValueError if there are fewer, or none."""
    if not quantizer.n_q:
        raise ValueError("this codec is continuous and has no tokens: extract its latents with --kind latents")
    return quantizer.check_n_q(n_q)


def save_tokens(path: str | Path, tokens: Tokens) -> None:
    """Write a token file atomically. Raises TokenError if it cannot be written, or a code needs more than 16 bits."""
    if tokens.codes.numel() and not 0 <= int(tokens.codes.min()) <= int(tokens.codes.max()) < 2**16:
        raise TokenError("a token file holds codes from 0 to 65,535")
    codes = np.ascontiguousarray(tokens.codes.cpu().numpy().astype(np.uint16))
    facts = {"format": FORMAT, "version": VERSION, "model": tokens.model, "length": str(tokens.length)}
    facts |= {"sample_rate": str(tokens.sample_rate), "hop_length": str(tokens.hop_length)}
    try:
        write_atomic(path, save({"codes": codes}, facts | {"checksum": _checksum(facts, codes)}))
    except OSError as error:
        raise TokenError(f"{path} cannot be written: {error}") from error


def load_tokens(path: str | Path) -> Tokens:
    """Read a token file. Raises TokenError if it is missing, damaged, no token file, or of another version."""
    if not Path(path).is_file():
        raise TokenError(f"there is no token file at {path}")
    try:
        with safe_open(path, framework="np") as file:
            facts, codes = file.metadata() or {}, file.get_tensor("codes") if "codes" in set(file.keys()) else None
    except (SafetensorError, OSError) as error:
        raise TokenError(f"{path} is no token file, or it is damaged: {first_line(error)}") from None
    if facts.get("format") != FORMAT or codes is None:
        raise TokenError(f"{path} is no token file of this project: its metadata lack format={FORMAT}")
    if facts.get("version") != VERSION:
        raise TokenError(f"{path} is of version {str(facts.get('version'))[:20]!r}, and this program reads {VERSION}")
    try:
        length, rate, hop = (int(facts[name]) for name in ("length", "sample_rate", "hop_length"))
        fits = codes.ndim == 2 and codes.dtype == np.uint16 and min(length, rate, hop, len(codes)) > 0
        intact = fits and codes.shape[1] == -(-length // hop) and facts["checksum"] == _checksum(facts, codes)
    except (KeyError, ValueError):
        intact = False
    if not intact:
        raise TokenError(f"{path} is damaged: its codes and its metadata disagree")
    return Tokens(torch.from_numpy(codes.astype(np.int64)), length, rate, hop, facts["model"])


def _checksum(facts: Mapping[str, str], codes: np.ndarray) -> str:
    names = ("format", "version", "model", "sample_rate", "hop_length", "length")
    header = "".join(f"{name}={facts[name]}\n" for name in names)
    return hashlib.blake2b(header.encode() + codes.tobytes(), digest_size=16).hexdigest()
