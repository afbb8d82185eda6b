"""Atomic writes: a file appears complete or not at all, also where the process that writes it is killed."""

import glob
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codec.utils.errors import InputError

PREFIX = "unfinished-"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file, open for writing, that is renamed to ``path`` when the block succeeds and removed when it fails.

    Its temporary name is ``file.name``. What a killed process left of the same path is removed first: only one process
    may write a path at a time (:func:`write_atomic` has no such restriction).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f"{PREFIX}{glob.escape(path.name)}-*"):
        leftover.unlink(missing_ok=True)
    with _renamed_when_complete(path) as file:
        yield file


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8. Several processes may write the same path at once: the last one wins."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _renamed_when_complete(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def _renamed_when_complete(path: Path) -> Iterator[BinaryIO]:
    handle, name = tempfile.mkstemp(prefix=f"{PREFIX}{path.name}-", dir=path.parent)
    os.close(handle)
    try:
        with open(name, "wb") as file:  # opened by name, so that `file.name` is a path
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def refuse_existing(paths: Sequence[Path], force: bool) -> None:
    """Raises InputError if one of the paths exists and ``force`` is not set."""
    if not force and (existing := next((path for path in paths if path.exists()), None)):
        raise InputError(f"{existing} exists already: choose another path, or replace it with --force")
