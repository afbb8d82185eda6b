"""Tensors in safetensors files that appear whole or not at all, and networks that are trained once and kept in them."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Stored = tuple[dict[str, Tensor], dict[str, str]]  # tensors on the CPU, metadata


def load(path: Path) -> Stored | None:
    """(tensors on the CPU, metadata) in ``path``, or None where there is no file or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write in one step, so that nobody meets half a file. Raises OSError, and then leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix="unfinished-")
    os.close(handle)
    try:
        save_file(tensors, name, metadata)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def kept(path: Path, make: Callable[[], Stored]) -> Stored:
    """What ``path`` holds; where it holds nothing, what ``make`` gives, left there: by this process, or by another that
    was first, and that the others wait for.

    Raises:
        ValueError: if it cannot be written; says what to do.
    """
    if (stored := load(path)) is not None:
        return stored
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock").acquire()
    except OSError as error:
        raise ValueError(
            f"cannot write {path} ({error.strerror}): set CODEC_CACHE to a folder that can be written."
        ) from error
    with lock:
        if (stored := load(path)) is None:
            stored = make()
            save(path, *stored)
    return stored
