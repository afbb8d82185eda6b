"""Bounded reads of files below a folder, or a URL that fsspec opens: http, https, s3 with `pip install s3fs`, ..."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from filelock import FileLock
from fsspec.callbacks import Callback
from fsspec.implementations.local import LocalFileSystem

from codec.data.base import CorpusError
from codec.data.retry import is_transient, reason, retried
from codec.utils.atomic import atomic_file
from codec.utils.redact import redact_text


class RemoteFolder:
    """Files below `url`, a folder or a URL, which messages give without credentials, as `label`.

    Args:
        options: of fsspec's file system, such as {"anon": True} for a public S3 bucket.
        cache: folder for copies of whole files, for servers that are slow or without range requests. Unlike fsspec's
            caches: atomic, one download for all processes, verified by digest, and at most `cache_gb` GB.
    """

    def __init__(self, url: str | Path, options: dict | None = None, cache: str | Path = "", cache_gb: float = 50.0):
        self.url, self.options = str(url).rstrip("/"), dict(options or {})
        self.label, self.is_local = redact_text(self.url), "://" not in self.url
        self.cache = Path(cache).expanduser() if cache and not self.is_local else None
        self.cache_gb = cache_gb

    def read(self, name: str, most: int) -> bytes:
        """Read a whole file. Raises CorpusError if it is missing, or longer than `most` bytes."""
        content = self._retried(name, lambda files, path: read_range(files, path, 0, most + 1))
        if len(content) > most:
            raise CorpusError(f"{self.label}/{name} is longer than {most} bytes: it is no file of shards.")
        return content

    def read_range(self, name: str, start: int, size: int, sha256: str, file_size: int) -> bytes:
        """Read `size` bytes from `start` on (fewer at the end) of a file of that digest and size. Raises
        CorpusError."""
        if self.cache:
            with self._open_copy(name, sha256, file_size) as file:
                file.seek(start)
                return file.read(min(size, file_size))
        content = self._retried(name, lambda files, path: read_range(files, path, start, start + size))
        if len(content) > size:
            raise CorpusError(f"{self.label} has no range requests: set dataset.cache=DIR for copies of whole files.")
        return content

    def check_ranges(self, name: str) -> None:
        """Raise CorpusError if the server has no range requests; `name` is a file of two bytes or more."""
        if not self.is_local and not self.cache:
            self.read_range(name, 0, 1, "", 2)

    def _retried(self, name: str, read: Callable[[Any, str], Any]) -> Any:
        def once() -> Any:
            files, root = fsspec.core.url_to_fs(self.url, **self.options)  # fsspec keeps one per process
            return read(files, f"{root.rstrip('/')}/{name}")

        where = f"{self.label}/{name}"
        try:
            return retried(once, where, lambda error: not self.is_local and is_transient(error))
        except FileNotFoundError:
            raise CorpusError(f"there is no {where}.") from None
        except Exception as error:
            raise CorpusError(f"{where} cannot be read: {reason(error)}.") from None

    def _open_copy(self, name: str, sha256: str, size: int) -> BinaryIO:
        """Open the local copy of a file, downloaded and verified if need be."""
        copy = self.cache / f"{sha256[:32]}.tar"
        with contextlib.suppress(FileNotFoundError):  # not there, or removed by another process
            return copy.open("rb")
        self.cache.mkdir(parents=True, exist_ok=True)
        with FileLock(copy.with_suffix(".lock")):
            if not copy.is_file():
                with atomic_file(copy) as file:
                    self._retried(name, lambda files, path: _download(files, path, file.name, sha256, size))
                self._remove_oldest(copy)
            return copy.open("rb")

    def _remove_oldest(self, newest: Path) -> None:
        copies = []
        for path in self.cache.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):  # removed by another process
                copies.append((path.stat().st_mtime, path.stat().st_size, path))
        used = 0
        for _, size, path in sorted(copies, reverse=True):
            used += size
            if used > self.cache_gb * 1e9 and path != newest:
                path.unlink(missing_ok=True)


class _Limit(Callback):
    """Ends a transfer of more than `most` bytes, whatever length the server has announced."""

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self.most:
            raise _TooLongError(f"it has more than the {self.most} bytes that the index says")


class _TooLongError(CorpusError):
    """A server sends more bytes than requested."""


def read_range(files: Any, path: str, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of a file; more, from its beginning, if a server ignores the range."""
    if isinstance(files, LocalFileSystem):
        with open(path, "rb") as file:  # a third of the time of `cat_file`
            file.seek(start)
            end = min(end, os.fstat(file.fileno()).st_size)  # `read` allocates the whole size
            return file.read(max(0, end - start))
    if "http" not in files.protocol:
        return files.cat_file(path, start=start, end=end)
    content = io.BytesIO()
    headers = {**files.kwargs.get("headers", {}), "Range": f"bytes={start}-{end - 1}"}
    with contextlib.suppress(_TooLongError):  # `cat_file` would read all that a server sends into memory
        files.get_file(path, content, callback=_Limit(end - start), headers=headers, chunk_size=2**20)
    return content.getvalue()


def _download(files: Any, path: str, target: str, sha256: str, size: int) -> None:
    files.get_file(path, target, callback=_Limit(size))
    with open(target, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise ConnectionError("its sha256 is not the one in the index")
