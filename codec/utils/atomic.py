"""Atomic writes: a file appears complete or not at all, also if the writing process is killed."""

import glob
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from codec.utils.errors import InputError

PREFIX = "unfinished-"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that is renamed to ``path`` on success and removed on failure; ``file.name`` is its temporary
    name. Leftovers of killed processes are removed, so only one process may write a path at a time (unlike
    `write_atomic`)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f"{PREFIX}{glob.escape(path.name)}-*"):
        leftover.unlink(missing_ok=True)
    with _renamed_when_complete(path) as file:
        yield file


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8. Concurrent writes of one path are safe: the last one wins."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _renamed_when_complete(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def _renamed_when_complete(path: Path) -> Iterator[BinaryIO]:
    name = path.with_name(f"{PREFIX}{path.name}-{secrets.token_hex(4)}")
    try:
        with open(str(name), "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


def refuse_existing(paths: Sequence[Path], force: bool) -> None:
    """Raise InputError if one of the paths exists and ``force`` is not set."""
    if not force and (existing := next((path for path in paths if path.exists()), None)):
        raise InputError(f"{existing} exists already: choose another path, or replace it with --force")
