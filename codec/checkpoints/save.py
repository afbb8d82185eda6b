"""Atomic, checksummed checkpoint files that survive a kill, a full disk and a damaged sector.

A checkpoint is written to a temporary file, synced, read back and renamed; the old ``last.ckpt`` becomes
``previous.ckpt``. Checksums are the CRC-32 of each record in torch.save's zip archive, which torch.load ignores.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from codec.checkpoints.pickle_check import check_archive
from codec.utils.atomic import atomic_file
from codec.utils.errors import UserError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
ROOM = "four checkpoints"  # last, previous, best, and the one being written


class StorageError(UserError, RuntimeError):
    """A checkpoint could not be written; older ones are unchanged."""


def write(checkpoint: dict[str, Any], path: str | Path, old_intact: bool = False) -> None:
    """Write a checkpoint completely, or raise StorageError if it cannot be written or read back.

    Where an intact ``last.ckpt`` or ``previous.ckpt`` exists, one exists at every moment. ``old_intact`` states
    that the file to be replaced is known to be intact, which saves reading it.
    """
    path = Path(path)
    try:
        with atomic_file(path) as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # read back from the disk, not from memory
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if reason := damage(file.name):
                raise StorageError(reason)
            if path.name == LAST and path.is_file() and (old_intact or not damage(path)):
                _link(path, path.with_name(PREVIOUS))
        _sync(path.parent)
    except (OSError, RuntimeError) as error:  # torch wraps errors of the system
        raise StorageError(
            f"the checkpoint {path} could not be written ({_reason(error)}), and older ones are unchanged: make room "
            f"for {ROOM} on its disk, and check that it is writable"
        ) from error


def damage(path: str | Path) -> str:
    """The fault of a checkpoint file, as a sentence; "" if it exists, is complete, and torch can read it."""
    if not Path(path).is_file():
        return "there is no such file"
    if reason := corrupt_record(path):
        return reason
    try:
        check_archive(path)
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # reads the structure, not the tensors
    except Exception as error:
        return f"it cannot be read: {_reason(error)}"
    return ""


def corrupt_record(path: str | Path) -> str:
    """The first record of the archive that differs from its CRC-32, as a sentence; "" if there is none.

    Dates and padding have no checksum; torch checks the rest of the archive's directory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # zipfile fails in a dozen ways on a damaged directory
        return f"it cannot be read as an archive: {_reason(error)}"
    return f"its record {record} does not have its checksum" if record else ""


def step_of(path: str | Path) -> int:
    """The optimizer step at which a checkpoint was saved; reads no tensors."""
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def last_before(folder: str | Path, step: int) -> Path | None:
    """The newest of ``last.ckpt`` and ``previous.ckpt`` that is intact and was saved at ``step`` or before."""
    for path in (Path(folder, LAST), Path(folder, PREVIOUS)):
        if not damage(path) and step_of(path) <= step:
            return path
    return None


def _link(path: Path, name: Path) -> None:
    """Give a file a second name atomically; on file systems without links, rename it."""
    link = name.with_name(f"{name.name}.part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        os.replace(path, name)
    else:
        os.replace(link, name)
        link.unlink(missing_ok=True)  # replacing one of two names of the same file leaves both


def _sync(folder: Path) -> None:
    """Force a folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    """The cause of an error in one line, preferably the system's message."""
    while not isinstance(error, OSError) and isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]
