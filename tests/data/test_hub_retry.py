"""A stream from the Hub, behind a Hub of this machine that drops lines, stalls, fails and is asked too often."""

import hashlib
import http.server
import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from codec.data.base import CorpusError
from codec.data.hf import open_hub
from tests.data.test_hf import hub, question, texts

COMMIT = "c0ffee" * 6 + "beef"
FAULTS = ["drop", "stall", "error", "busy"]


class Hub(http.server.ThreadingHTTPServer):
    """The routes of the Hub that opening and reading ``owner/name`` ask for, its files below ``root``.

    ``fault`` is what becomes of each request the first ``times`` times that it comes; ``asked`` counts them.
    """

    daemon_threads = True

    def __init__(self, root: Path):
        self.root, self.fault, self.times = root, "", 1
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), Answer)

    def handle_error(self, *_) -> None:
        """A client that hangs up is no news."""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        request = (self.command, url.path, self.headers.get("Range", ""))
        self.server.asked[request] += 1
        status, body, headers = self.found(url.path.strip("/").split("/"), parse_qs(url.query))
        fault = self.server.fault if self.server.asked[request] <= self.server.times else ""
        if fault in ("error", "busy"):
            status, body, headers = (500, b"", {}) if fault == "error" else (429, b"", {"RateLimit": '"api";r=0;t=55'})
        broken = fault in ("drop", "stall")  # in the middle of what there is to send
        if not broken or self.command == "GET":
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if broken else body)
        if fault == "stall":
            self.server.over.wait(10)  # the client hangs up before
        self.close_connection = broken

    do_HEAD = do_GET

    def found(self, parts: list[str], query: dict[str, list[str]]) -> tuple[int, bytes, dict[str, str]]:
        match parts:
            case ["api", "datasets", "owner", "name", "revision", _]:
                return 200, json.dumps({"id": "owner/name", "sha": COMMIT}).encode(), {}
            case ["api", "datasets", "owner", "name", "tree", _, *folder]:
                inside = self.server.root.joinpath(*folder)
                paths = sorted(inside.rglob("*") if query["recursive"] == ["true"] else inside.iterdir())
                return 200, json.dumps([self.entry(path) for path in paths]).encode(), {}
            case ["datasets", "owner", "name", "resolve", _, *name]:
                return self.file(self.server.root.joinpath(*name))
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def entry(self, path: Path) -> dict:
        name = path.relative_to(self.server.root).as_posix()
        return {
            "type": "file" if path.is_file() else "directory",
            "path": name,
            "oid": COMMIT,
            "size": path.stat().st_size,
        }

    def file(self, path: Path) -> tuple[int, bytes, dict[str, str]]:
        if not path.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        whole = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(whole).hexdigest()}"', "Accept-Ranges": "bytes"}
        if not (wanted := self.headers.get("Range")):
            return 200, whole, headers
        first, last = (int(n) if n else len(whole) - 1 for n in wanted.removeprefix("bytes=").split("-"))
        body = whole[first : last + 1]
        return 206, body, headers | {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(whole)}"}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("files")
    hub(root, shards=2)
    (root / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n")
    return root


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    """The Hub that HF_ENDPOINT would name; nobody waits before another try."""
    with Hub(files) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{found.server_port}"
        for where, values in {
            "huggingface_hub.constants": {"ENDPOINT": address, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": tmp_path},
            "datasets.config": {
                "HF_ENDPOINT": address,
                "HF_HUB_OFFLINE": False,
                "USE_PARQUET_EXPORT": False,  # of other hosts
                "HF_UPDATE_DOWNLOAD_COUNTS": False,
                "STREAMING_READ_MAX_RETRIES": 1,
                "STREAMING_READ_RETRY_INTERVAL": 0,
                "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 0,
            },
        }.items():
            for name, value in values.items():
                monkeypatch.setattr(f"{where}.{name}", value)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))
        yield found
        found.over.set()
        found.shutdown()
    huggingface_hub.close_session()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The seconds that we, above the library, wait before another try."""
    waited: list[float] = []
    monkeypatch.setattr("codec.data.hub_retry.time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_fails_once_and_no_row_is_lost_or_comes_twice(server, pauses, fault, monkeypatch):
    monkeypatch.setattr("codec.data.hub_retry.PATIENCE", 0.1 if fault == "stall" else 10.0)
    server.fault = fault
    corpus = open_hub("owner/name", **question(streaming=True, held=2))
    opened = len(pauses)
    assert opened
    crops = corpus.crops(4000, 0)
    places = sorted(place for _, place in crops.rows(0))
    assert places == ["0/2", "0/3", "1/0", "1/1", "1/2", "1/3"]
    assert texts(corpus.clips("val")) == {"question 0", "question 1"}
    failed = {kind for kind, _, _ in server.asked}
    assert failed == {"GET", "HEAD"}
    assert all(
        count > 1 for (_, path, _), count in server.asked.items() if path.startswith(("/api/datasets", "/datasets"))
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_stays_down_when_a_dataset_is_opened_is_one_sentence(server, pauses, fault, monkeypatch):
    monkeypatch.setattr("codec.data.hub_retry.PATIENCE", 0.02 if fault == "stall" else 10.0)
    server.fault, server.times = fault, 10**6
    with pytest.raises(CorpusError, match="cannot open the dataset 'owner/name'") as caught:
        open_hub("owner/name", **question(streaming=True))
    assert "\n" not in str(caught.value)
    assert pauses == ([56] * 6 if fault == "busy" else [1, 2, 4, 8, 16, 32])  # the Hub said 55 and is given one more


@pytest.mark.parametrize("fault", ["drop", "error", "busy"])
def test_a_hub_that_goes_down_later_is_one_sentence(server, pauses, fault):
    corpus = open_hub("owner/name", **question(streaming=True))
    rows = corpus.rows(1)
    assert next(rows)[1]["question"] == "question 4"
    server.asked.clear()
    server.fault, server.times = fault, 10**6
    with pytest.raises(CorpusError, match="owner/name stops at row 0 of file 0") as caught:
        list(corpus.rows(0))
    assert "\n" not in str(caught.value)
    assert len(pauses) == 6


@pytest.mark.parametrize("streaming", [False, True], ids=["table", "stream"])
def test_what_the_hub_does_not_have_is_not_asked_for_again(server, pauses, streaming):
    for name, options in (("owner/none", {}), ("owner/name", {"split": "test"})):
        with pytest.raises(CorpusError, match="cannot open") as caught:
            open_hub(name, **question(streaming=streaming, **options))
        assert "\n" not in str(caught.value)
    assert not pauses


def test_a_dataset_that_is_downloaded_survives_the_same_and_then_streams_without_the_hub(server, pauses, monkeypatch):
    """From what the library has kept of it, as long as the Hub is away."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", constants.HF_HUB_CACHE / "datasets")
    server.fault = "error"
    corpus = open_hub("owner/name", **question(holdout=0.2))
    assert corpus.size == 8
    assert pauses
    server.fault, server.times = "drop", 10**6
    shutil.rmtree(next(constants.HF_HUB_CACHE.glob("datasets--*")))
    rows = open_hub("owner/name", **question(streaming=True)).rows(0)
    assert [content["question"] for _, content in rows] == [f"question {i}" for i in range(8)]
