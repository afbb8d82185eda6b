"""The user's cache folder: JSON and tensors that can be computed again."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from codec.utils.atomic import write_atomic
from codec.utils.environment import temporary_home

Stored = tuple[dict[str, Any], dict[str, str]]
"""(tensors on the CPU by name, metadata)."""


def cache_dir() -> Path:
    """$CODEC_CACHE, or ~/.cache/codec, or, where that cannot be written, a folder among the temporary files."""
    if named := os.environ.get("CODEC_CACHE"):
        return Path(named).expanduser()
    folder = Path(os.path.expanduser("~/.cache/codec"))
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else temporary_home()


def cache_key(*parts: object) -> str:
    """16 hexadecimal digits, equal for equal parts in every process."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


def corpus_fingerprint(crops: Any) -> str:
    """Digest of the first 8 training crops, which depend on all recordings, the held-out part and the seed."""
    digest = hashlib.blake2b()
    for n in range(8):
        item = crops[n]
        digest.update(item["wav"].numpy().tobytes() + repr(item["phones"]).encode())
    return digest.hexdigest()


def load_json(path: Path) -> dict:
    """The object in a JSON file; {} if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def save_json(path: Path, content: dict) -> None:
    """Write a JSON file; ignores a failure, since the content can be computed again."""
    with contextlib.suppress(OSError):
        write_atomic(path, json.dumps(content))


def load_tensors(path: Path) -> Stored | None:
    """Tensors (on the CPU) and metadata of a safetensors file; None if the file is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def save_tensors(path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises OSError."""
    from safetensors.torch import save

    write_atomic(path, save(tensors, metadata))


def cached_tensors(path: Path, make: Callable[[], Stored]) -> Stored:
    """Content of ``path``, or else the result of ``make``, saved there; concurrent processes call ``make`` once. Raises
    ValueError if the cache folder cannot be written."""
    from filelock import FileLock

    if (stored := load_tensors(path)) is not None:
        return stored
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock").acquire()
    except OSError as error:
        raise ValueError(f"cannot write {path} ({error.strerror}): set CODEC_CACHE to a writable folder") from error
    with lock:
        if (stored := load_tensors(path)) is None:
            stored = make()
            save_tensors(path, *stored)
    return stored
