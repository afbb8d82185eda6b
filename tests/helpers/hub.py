"""Datasets with the schema of gpt-omni/VoiceAssistant-400K, and a server that answers like the Hub and fails."""

import contextlib
import hashlib
import http.server
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from datasets import Audio, Features, Value

from tests.helpers.shards import serving
from tests.helpers.signals import noise

STRUCT = {"bytes": Value("binary"), "path": Value("string")}
COMMIT = "c0ffee" * 6 + "beef"


def hub(folder: Path, kind=None, shards: int = 3, rows: int = 4, bad=()) -> str:
    """`shards` parquet files of `rows` recordings of 0.5 s and more; those numbered in `bad` are text."""
    columns = dict.fromkeys(("split_name", "index", "question", "answer", "round"), Value("string"))
    features = Features({**columns, "question_audio": kind or Audio()})
    (folder / "data").mkdir(parents=True)
    for shard in range(shards):
        numbers = range(shard * rows, (shard + 1) * rows)
        table = {name: [f"{name} {i}" for i in numbers] for name in columns}
        sound = [b"no audio" if i in bad else flac(0.5 + 0.1 * i, i) for i in numbers]
        table["question_audio"] = [{"bytes": b, "path": f"{i}.flac"} for i, b in zip(numbers, sound, strict=True)]
        name = f"train-{shard:05d}-of-{shards:05d}.parquet"
        pq.write_table(pa.table(table, schema=features.arrow_schema), folder / "data" / name)
    return str(folder)


def flac(seconds: float, seed: int) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, noise(round(seconds * 22_050), seed), 22_050, format="FLAC")
    return data.getvalue()


def question(**options) -> dict:
    """Arguments of `open_hub` for such a dataset."""
    return {"column": "question_audio", "text_column": "question", "sample_rate": 16_000} | options


class FakeHub:
    """The routes of the Hub that opening and reading ``owner/name`` need, its files below `root`.

    `fault` is the answer to the first `times` times of each request; `requests` counts them.
    """

    def __init__(self, root: Path):
        self.root, self.fault, self.times, self.url = root, "", 1, ""
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.over = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator["FakeHub"]:
        with serving(type("Handler", (_Handler,), {"hub": self})) as self.url:
            yield self
            self.over.set()

    def answer(self, path: str, query: dict, span: str) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers)"""
        match path.strip("/").split("/"):
            case ["api", "datasets", "owner", "name", "revision", _]:
                return 200, json.dumps({"id": "owner/name", "sha": COMMIT}).encode(), {}
            case ["api", "datasets", "owner", "name", "tree", _, *folder]:
                inside = self.root.joinpath(*folder)
                paths = sorted(inside.rglob("*") if query["recursive"] == ["true"] else inside.iterdir())
                return 200, json.dumps([self._entry(path) for path in paths]).encode(), {}
            case ["datasets", "owner", "name", "resolve", _, *name] if self.root.joinpath(*name).is_file():
                whole = self.root.joinpath(*name).read_bytes()
                headers = {"ETag": f'"{hashlib.sha1(whole).hexdigest()}"', "Accept-Ranges": "bytes"}
                if not span:
                    return 200, whole, headers
                first, last = (int(n) if n else len(whole) - 1 for n in span.removeprefix("bytes=").split("-"))
                body = whole[first : last + 1]
                return 206, body, headers | {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(whole)}"}
            case ["datasets", "owner", "name", *_]:
                return 404, b"", {"X-Error-Code": "EntryNotFound"}
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def _entry(self, path: Path) -> dict:
        kind = "file" if path.is_file() else "directory"
        name = path.relative_to(self.root).as_posix()
        return {"type": kind, "path": name, "oid": COMMIT, "size": path.stat().st_size}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        request = (self.command, url.path, self.headers.get("Range", ""))
        self.hub.requests[request] += 1
        status, body, headers = self.hub.answer(url.path, parse_qs(url.query), request[2])
        fault = self.hub.fault if self.hub.requests[request] <= self.hub.times else ""
        if fault in ("error", "busy"):
            status, body, headers = (500, b"", {}) if fault == "error" else (429, b"", {"RateLimit": '"api";r=0;t=55'})
        broken = fault in ("drop", "stall")  # in the middle of the body
        if not broken or self.command == "GET":
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
        with contextlib.suppress(ConnectionError):
            if self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if broken else body)
        if fault == "stall":
            self.hub.over.wait(10)  # the client gives up before
        self.close_connection = broken

    do_HEAD = do_GET
