"""Tensors in safetensors files that appear whole or not at all."""

import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
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
