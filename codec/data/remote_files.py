"""Bytes of the files below a folder or a URL: whole small files, pieces of large ones.

A folder is read directly, anything else by fsspec: http and https as they are, s3 with `pip install s3fs`, and so on.
"""

import contextlib
import hashlib
import io
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import fsspec.asyn
import fsspec.callbacks
from filelock import FileLock

from codec.data.base import CorpusError
from codec.utils.atomic import atomic_file

RETRIES = 5  # after 1, 2, 4, ... seconds

ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^\s'\"]*@)?(?P<rest>[^\s'\"?#]*)(?:[?#][^\s'\"]*?(?=\)?(?:[\s'\"]|$)))?",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)
_process = os.getpid()


class Store:
    """The files below `place`, a folder or a URL, which messages call `shown`.

    Args:
        options: for fsspec's file system, such as {"anon": True} for a public S3 bucket.
        cache: a folder that gets a copy of every large file read, for servers that give no pieces, or slowly.
        cache_gb: the oldest copies are removed beyond so much.
    """

    def __init__(
        self,
        place: str,
        options: dict[str, Any] | None = None,
        cache: str | Path | None = None,
        cache_gb: float = 50.0,
    ):
        self.place = str(place).rstrip("/")
        self.shown = shown(self.place)
        self.options = dict(options or {})
        self.local = None if "://" in self.place else Path(self.place).expanduser()
        self.cache = Path(cache).expanduser() if cache else None
        self.cache_gb = cache_gb
        self._files: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": None}  # a connection belongs to one process

    def read(self, name: str, most: int) -> bytes:
        """The whole of a small file. Raises CorpusError if it is not there, or longer than `most` bytes."""
        if self.local:
            content = self._read_local(name, 0, most + 1)
        else:  # not `open`, which takes a dead line for a missing file
            content = self._remote(name, lambda files, path: _fetch(files, path, 0, most + 1))
        if len(content) > most:
            raise CorpusError(f"{self.shown}/{name} is longer than {most} bytes: it is no file of shards.")
        return content

    def piece(self, name: str, start: int, size: int, sha256: str, whole: int) -> bytes:
        """`size` bytes from `start` on of a file of `whole` bytes with that digest.

        Raises CorpusError if they cannot be had; fewer bytes are returned where the file is shorter.
        """
        if self.local:
            return self._read_local(name, start, size)
        if self.cache:
            for _ in range(2):  # another process may have removed the copy in the meantime
                try:
                    return _from_file(self._copy(name, sha256, whole), start, size)
                except FileNotFoundError:
                    continue
            raise CorpusError(f"copies in {self.cache} are removed before they are read: raise dataset.cache_gb.")
        found = self._remote(name, lambda files, path: _fetch(files, path, start, start + size))
        if len(found) > size:
            raise CorpusError(f"{self.shown} does not give pieces of files: set dataset.cache=DIR to copy whole ones.")
        return found

    def check_pieces(self, name: str) -> None:
        """Find out with a small file of two bytes or more whether the server gives pieces. Raises CorpusError."""
        if not self.local and not self.cache:
            self.piece(name, 0, 1, "", 2)

    def _read_local(self, name: str, start: int, size: int) -> bytes:
        try:
            return _from_file(self.local / name, start, size)
        except OSError as error:
            raise CorpusError(f"{self.local / name} cannot be read: {error.strerror}.") from None

    def _remote(self, name: str, read: Callable[[Any, str], Any]) -> Any:
        for attempt in range(RETRIES + 1):
            try:
                files, root = self._open()
                return read(files, f"{root}/{name}")
            except FileNotFoundError:
                raise CorpusError(f"there is no {self.shown}/{name}.") from None
            except Exception as error:  # of many kinds: the network's and the protocols' own
                reason = shown((str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."))
                if attempt == RETRIES or isinstance(error, CorpusError | PermissionError):
                    raise CorpusError(f"{self.shown}/{name} cannot be read: {reason}.") from None
                log.warning("%s/%s: %s; trying again", self.shown, name, reason)
                time.sleep(2**attempt)

    def _open(self) -> tuple[Any, str]:
        if self._files is None or self._files[0] != os.getpid():
            _after_fork()
            try:
                files, root = fsspec.core.url_to_fs(self.place, skip_instance_cache=True, **self.options)
            except (ImportError, ValueError, TypeError) as error:  # TypeError: an option that there is not
                raise CorpusError(f"{self.shown} cannot be opened: {shown(str(error)).rstrip('.')}.") from None
            self._files = os.getpid(), files, root.rstrip("/")
        return self._files[1:]

    def _copy(self, name: str, sha256: str, size: int) -> Path:
        """The local copy of a large file of `size` bytes, made now if need be, its digest checked."""
        copy = self.cache / f"{sha256[:32]}.tar"
        if copy.is_file():
            return copy
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(self.cache / f"{sha256[:32]}.lock"):
            if not copy.is_file():
                with atomic_file(copy) as file:
                    self._remote(name, lambda files, path: _download(files, path, Path(file.name), sha256, size))
                self._make_room(copy)
        return copy

    def _make_room(self, newest: Path) -> None:
        copies = []
        for path in self.cache.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):  # another process makes room, too
                facts = path.stat()
                copies.append((facts.st_mtime, facts.st_size, path))
        used = 0
        for _, size, path in sorted(copies, reverse=True):
            used += size
            if used > self.cache_gb * 1e9 and path != newest:
                path.unlink(missing_ok=True)


def shown(text: str) -> str:
    """The text without what may be secret in its addresses: `user:password@`, and all from `?` or `#` on."""
    return ADDRESS.sub(r"\g<scheme>\g<rest>", text)


def _from_file(path: Path, start: int, size: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        size = min(size, max(0, os.fstat(file.fileno()).st_size - start))  # `read` makes room for all that it is asked
        file.seek(start)
        found = file.read(size)
        while len(found) < size and (more := file.read(size - len(found))):
            found += more
    return found


class _TooMuchError(CorpusError):
    """More arrives than was asked for."""


class _AtMost(fsspec.callbacks.Callback):
    """Ends a transfer that brings more than `most` bytes, whatever the server has said of its length."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self.most:
            raise _TooMuchError(f"it has more than the {self.most} bytes that the index says")


def _fetch(files: Any, path: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of a file; a little more from the file's beginning where a server gives no pieces."""
    if "http" not in files.protocol:
        return files.cat_file(path, start=start, end=end)
    found = io.BytesIO()
    headers = {**files.kwargs.get("headers", {}), "Range": f"bytes={start}-{end - 1}"}
    with contextlib.suppress(_TooMuchError):  # `cat_file` would take all that a server sends into memory
        files.get_file(path, found, callback=_AtMost(end - start), headers=headers, chunk_size=2**20)
    return found.getvalue()


def _download(files: Any, path: str, target: Path, sha256: str, size: int) -> None:
    files.get_file(path, str(target), callback=_AtMost(size))
    with open(target, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise OSError("what arrives has not the sha256 that the index says")


def _after_fork() -> None:
    """fsspec's thread does not survive a fork, and what waits for it would wait for ever."""
    global _process
    if _process != os.getpid():
        fsspec.asyn.reset_lock()
        _process = os.getpid()
