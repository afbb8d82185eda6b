"""Folders of shards for the tests, and a web server for them."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from codec.data.folder import FolderCorpus
from codec.data.shard_writer import pack
from codec.data.work_units import cut


def packed(source: Path, target: Path, seconds: float = 3.0, **options) -> Path:
    """Shards of a folder of audio, made in this process."""
    pack(cut(FolderCorpus(source, 16_000, **options), seconds), target, workers=0, report=lambda _: None)
    return target


def changed(folder: Path, change) -> None:
    """Apply `change` to the content of the index."""
    content = json.loads((folder / "index.json").read_text())
    change(content)
    (folder / "index.json").write_text(json.dumps(content))


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server on this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def served(folder: Path, ranges: bool = True) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """(URL of the folder, (path, bytes sent) of the requests so far); with pieces of files on demand, or without."""
    sent: list[tuple[str, int]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content, wanted = path.read_bytes(), self.headers.get("Range")
            size = len(content)
            self.send_response(206 if wanted and ranges else 200)
            if wanted and ranges:
                first, last = wanted.removeprefix("bytes=").split("-")
                content = content[int(first) : int(last or size) + 1]
                self.send_header("Content-Range", f"bytes {first}-{int(first) + len(content) - 1}/{size}")
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                sent.append((self.path.lstrip("/"), len(content)))
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with serving(Handler) as url:
        yield url, sent


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
