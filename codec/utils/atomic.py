"""Files that appear whole or not at all, whatever kills the process that writes them."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codec.utils.errors import InputError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when the block ends without an error, and is gone otherwise.

    What a killed process left of the same file is removed first: no two processes may write one path at once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"unfinished-{path.name}-*"):
        left.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"unfinished-{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        with open(name, "wb") as file:  # by name, so that `file.name` is one
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """`atomic_file` for content that is at hand; several processes may write the same content at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f"unfinished-{os.getpid()}-", dir=path.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_free(files: Sequence[Path], force: bool) -> None:
    """Raises InputError if one of the files exists and is not to be replaced."""
    there = [file for file in files if file.exists()]
    if there and not force:
        raise InputError(f"{there[0]} exists already: give another place, or --force to replace it")
