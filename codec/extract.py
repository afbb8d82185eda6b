"""Encode a corpus, by as many processes as there are: unit i (codec/data/units.py) belongs to process i mod world.

Nobody waits for anybody: a unit's file appears whole, what is there is not made again, and any process may be killed
and started again anywhere. The same units and the same codec on the same kind of machine give the same bytes.

A unit's file is NAME.safetensors: ``codes`` ``[K, F]`` uint16 of all its recordings one after another; ``ends`` ``[n]``
int64, where each ends among the frames; ``lengths`` ``[n]`` int64, samples of each; and, as metadata, ``about``: JSON,
what is known of each, what could not be read, of the codec what a token file says (codec/tokens.py), and ``checksum``:
BLAKE2b-128 of all the others, as JSON, and of the bytes of the three tensors (hexadecimal).
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import CorpusError
from codec.data.ledger import Ledger
from codec.data.pack import check_plan, check_share
from codec.data.units import Units
from codec.data.whole import whole, write_whole
from codec.model import Codec
from codec.outside import parse_json
from codec.tokens import TokenError, Tokens, fingerprint

FORMAT, VERSION = "codec-token-shards", 2
INDEX = "index.json"
ENDING = ".safetensors"
KNOWN = ("file", "speaker", "text", "phones")  # of each recording
FACTS = ("recordings", "unreadable", "frames", "seconds")  # of each unit, in the index


def extract(
    codec: Codec,
    units: Units,
    folder: Path,
    n_q: int | None = None,
    part: tuple[int, int] = (0, 1),
    report: Callable[[str], None] = print,
) -> dict | None:
    """Write the units of process ``part`` (index, count) that are not there -> the index, None while some are missing.

    Raises:
        CorpusError: if the folder holds the tokens of another corpus or codec, or too much cannot be read.
        ValueError: if the codec has fewer than ``n_q`` codebooks, or none, or more than 65,536 entries in one.
    """
    n_q = codec.quantizer.check_n_q(codec.quantizer.n_q if n_q is None else n_q)
    model = {"model": fingerprint(codec.quantizer, n_q), "sample_rate": codec.sample_rate}
    model |= {"hop_length": codec.hop_length, "n_q": n_q}
    check_plan(folder, {"corpus": units.digest, "tokens": VERSION, "weights": _weights(codec), **model})
    ledger = Ledger(units.size)
    ledger.add(units.bad)
    todo = [u for u in range(part[0], len(units.names), part[1]) if not (folder / (units.names[u] + ENDING)).is_file()]
    for done, unit in enumerate(todo, start=1):
        skipped, heard = _write(codec, units, unit, folder, n_q, model)
        ledger.add(skipped, heard)
        report(f"{units.names[unit]}: {done} of {len(todo)} units made")
    if not all((folder / (name + ENDING)).is_file() for name in units.names):
        return None
    listed = [_entry(folder, name) for name in units.names]
    good, bad = (sum(entry[fact] for entry in listed) for fact in FACTS[:2])
    check_share(len(units.bad) + bad, units.size, len(units.bad) + bad + good)  # of all processes and calls
    index = {"format": FORMAT, "version": VERSION, **model, "splits": units.splits, "units": listed}
    write_whole(folder / INDEX, (json.dumps(index, indent=0) + "\n").encode())
    return index


@torch.inference_mode()
def _write(
    codec: Codec, units: Units, unit: int, folder: Path, n_q: int, model: dict
) -> tuple[list[tuple[str, str]], list[str]]:
    """Write one unit -> (name, reason) of what could not be read, and the names of the others."""
    device = next(codec.buffers()).device
    codes, lengths, about, skipped = [], [], [], []
    for recording in units.recordings(unit):
        try:
            if isinstance(recording, AudioError):
                raise recording
            wav = audio.read(recording.source, codec.sample_rate, 0, None, recording.name)
        except AudioError as error:
            skipped.append((error.file, error.reason))
            continue
        found = codec.encode(torch.from_numpy(wav)[None, None].to(device), n_q)[0].cpu().numpy()
        if found.size and not 0 <= int(found.min()) <= int(found.max()) < 2**16:
            raise ValueError("files of tokens hold codes from 0 to 65,535")
        codes.append(found.astype(np.uint16))
        lengths.append(len(wav))
        known = {part: getattr(recording, part) for part in ("speaker", "text", "phones")}
        about.append({"file": recording.name, **known})
    ends = np.cumsum([found.shape[1] for found in codes], dtype=np.int64)
    tensors = {"codes": np.ascontiguousarray(np.concatenate([np.zeros((n_q, 0), np.uint16), *codes], axis=1))}
    tensors |= {"ends": ends, "lengths": np.array(lengths, np.int64)}
    facts = {"format": FORMAT, "version": VERSION, **model, "recordings": about, "unreadable": skipped}
    facts["checksum"] = checksum_of(facts, tensors)
    with whole(folder / (units.names[unit] + ENDING)) as file:
        file.write(save(tensors, {"about": json.dumps(facts)}))
    return skipped, [recording["file"] for recording in about]


def read_unit(path: Path) -> Iterator[tuple[dict[str, str], Tokens]]:
    """({file, speaker, text, phones}, tokens) of each recording in a unit's file.

    Raises:
        TokenError: if it is missing, damaged or something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            facts = parse_json((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in ("codes", "ends", "lengths")}
        (codes, ends, lengths), checksum = tensors.values(), facts.pop("checksum")
        about, model = facts["recordings"], (facts["sample_rate"], facts["hop_length"], facts["model"])
        fits = (facts["format"], facts["version"]) == (FORMAT, VERSION) and _is_plain(about, *model)
        fits = fits and checksum == checksum_of(facts, tensors)
        fits = fits and codes.dtype == np.uint16 and ends.dtype == lengths.dtype == np.int64
        fits = fits and (codes.ndim, ends.ndim, lengths.ndim) == (2, 1, 1) and len(codes) > 0
        fits = fits and codes.shape[1] == (ends[-1] if len(ends) else 0) and len(about) == len(ends)
        fits = fits and bool((lengths > 0).all() and (lengths < 2**48).all())
        fits = fits and np.array_equal(np.cumsum(-(-lengths // facts["hop_length"])), ends)
    except Exception as error:  # what is damaged fails in a dozen ways
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TokenError(f"{path} is no unit of tokens, or it is damaged: {reason}") from None
    if not fits:
        raise TokenError(f"{path} is damaged, or of another version: its codes and what it says of them do not agree")
    for fact, end, length in zip(about, ends.tolist(), lengths.tolist(), strict=True):
        first = end - -(-length // facts["hop_length"])
        yield fact, Tokens(torch.from_numpy(codes[:, first:end].astype(np.int64)), length, *model)


def checksum_of(facts: dict, tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16)
    for name in ("codes", "ends", "lengths"):
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _is_plain(about: Any, rate: Any, hop: Any, model: Any) -> bool:
    """Whether these are texts of recordings, numbers above 0 and a text, as `_write` writes them."""
    numbers = all(type(value) is int and 0 < value < 2**31 for value in (rate, hop))
    if not numbers or not isinstance(model, str) or not isinstance(about, list):
        return False
    texts = [isinstance(fact, dict) and [fact.get(part) for part in KNOWN] for fact in about]
    return all(found and all(isinstance(text, str) for text in found) for found in texts)


def _entry(folder: Path, name: str) -> dict:
    path = folder / (name + ENDING)
    try:
        found = [tokens for _, tokens in read_unit(path)]
        with safe_open(path, framework="np") as file:
            unreadable = len(parse_json(file.metadata()["about"])["unreadable"])
    except TokenError as error:
        raise CorpusError(f"{error}; remove it and extract again.") from None
    seconds = round(sum(tokens.length / tokens.sample_rate for tokens in found), 3)
    counts = dict(zip(FACTS, (len(found), unreadable, sum(t.codes.shape[1] for t in found), seconds), strict=True))
    content = path.read_bytes()
    return {"name": name, **counts, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _weights(codec: Codec) -> str:
    """Digest of the encoder: with other weights the same codebooks give other codes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(codec.encoder.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()
