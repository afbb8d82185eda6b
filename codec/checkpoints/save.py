"""Checkpoint files that outlive a kill, a full disk and a bad sector.

A file is written beside its place, forced to the disk, read back, and only then renamed. Its checksum is inside: what
torch.save writes is a zip archive with a CRC-32 of every record, which torch.load does not look at and
:func:`bad_record` does. Of ``last.ckpt``, from which a run goes on, the one before is kept as ``previous.ckpt``.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from codec.checkpoints.pickle_check import check_archive
from codec.utils.errors import UserError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
ROOM = "four checkpoints"  # the last, the one before, the best, and the one that is being written


class StorageError(UserError, RuntimeError):
    """A checkpoint could not be written; the message is one sentence, and what was there before is still there."""


def write(checkpoint: dict[str, Any], path: str | Path, known: bool = False) -> None:
    """Write a checkpoint, whole or not at all.

    Whatever happens, and whenever, an intact ``last.ckpt`` or ``previous.ckpt`` is left where there was one.

    Args:
        known: the file that is there now is known to be intact, and is not read to find out.

    Raises:
        StorageError: if it cannot be written, or does not read back as it was written.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # read back what the disk has, not what memory has
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if reason := damage(part):
            raise StorageError(reason)
        if path.name == LAST and path.is_file() and (known or not damage(path)):
            _also(path, path.with_name(PREVIOUS))
        os.replace(part, path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:  # torch wraps what the disk says
        reason = _reason(error)
        part.unlink(missing_ok=True)
        raise StorageError(
            f"the checkpoint {path} could not be written ({reason}), and older ones are untouched: see to it that its "
            f"disk has room for {ROOM}, and can be written"
        ) from error


def damage(path: str | Path) -> str:
    """What is wrong with a checkpoint file, "" if nothing is: it is there, whole, and torch can read it."""
    if not Path(path).is_file():
        return "there is no such file"
    if record := bad_record(path):
        return record
    try:
        check_archive(path)
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # reads the structure, not the tensors
    except Exception as error:
        return f"it cannot be read: {_reason(error)}"
    return ""


def bad_record(path: str | Path) -> str:
    """The record of the archive that is not what was written, in a sentence, "" if there is none.

    Dates and padding have no checksum; the rest of the archive's directory torch checks for itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
    except Exception as error:  # a damaged directory of an archive makes it fail in a dozen ways
        return f"it cannot be read as an archive: {_reason(error)}"
    return f"its record {record} does not have its checksum" if record else ""


def step_of(path: str | Path) -> int:
    """The optimiser step at which a checkpoint was saved; nothing else of it is read."""
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def last_before(folder: str | Path, step: int) -> Path | None:
    """Of ``last.ckpt`` and ``previous.ckpt`` the newest that is intact and was saved at ``step`` or before."""
    for path in (Path(folder, LAST), Path(folder, PREVIOUS)):
        if not damage(path) and step_of(path) <= step:
            return path
    return None


def _also(path: Path, name: Path) -> None:
    """Give a file a second name at once; where the file system has no links, that name only."""
    link = name.with_name(f"{name.name}.part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        os.replace(path, name)
    else:
        os.replace(link, name)
        link.unlink(missing_ok=True)  # still there if both were one file already


def _sync(folder: Path) -> None:
    """Force the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    """The cause in a line: of an error of the system what the system says."""
    while not isinstance(error, OSError) and isinstance(error.__cause__ or error.__context__, Exception):
        error = error.__cause__ or error.__context__
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:200]
