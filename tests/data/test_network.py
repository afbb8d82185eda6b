"""Reads over a network that drops connections, stalls, fails, or is overloaded: retried within a limit."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from codec.data.base import CorpusError
from codec.data.hf import open_hub
from codec.data.hf_columns import fetch
from codec.data.retry import RETRIES
from tests.helpers.hub import FakeHub, hub, question

FAULTS = ["drop", "stall", "error", "busy"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("files")
    hub(root, shards=2)
    (root / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n")
    return root


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    """The Hub that HF_ENDPOINT would name; the libraries do not wait before another try."""
    with FakeHub(files).running() as found:
        template = f"{found.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for where, values in {
            "huggingface_hub.constants": {
                "ENDPOINT": found.url,
                "HF_HUB_OFFLINE": False,
                "HF_HUB_CACHE": tmp_path,
                "HUGGINGFACE_CO_URL_TEMPLATE": template,
            },
            "datasets.config": {
                "HF_ENDPOINT": found.url,
                "HF_HUB_OFFLINE": False,
                "USE_PARQUET_EXPORT": False,  # of other hosts
                "HF_UPDATE_DOWNLOAD_COUNTS": False,
                "STREAMING_READ_MAX_RETRIES": 1,
                "STREAMING_READ_RETRY_INTERVAL": 0,
                "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 0,
            },
            "huggingface_hub.utils._http": {"time": SimpleNamespace(sleep=lambda _: None)},
        }.items():
            for name, value in values.items():
                monkeypatch.setattr(f"{where}.{name}", value)
        yield found
    huggingface_hub.close_session()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The seconds of our own pauses."""
    waited: list[float] = []
    monkeypatch.setattr("codec.data.retry.time", SimpleNamespace(sleep=waited.append))
    return waited


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_fails_once_and_no_row_is_lost_or_repeated(server, pauses, fault, monkeypatch):
    monkeypatch.setattr("codec.data.hf_stream.TIMEOUT", 0.1 if fault == "stall" else 10.0)
    server.fault = fault
    corpus = open_hub("owner/name", **question(streaming=True, held=2))
    assert pauses
    places = sorted(place for _, place in corpus.crops(4000, 0).rows(0))
    assert places == ["0/2", "0/3", "1/0", "1/1", "1/2", "1/3"]
    assert [clip["text"] for part in ("test", "val") for clip in corpus.clips(part)] == ["question 0", "question 1"]
    paths = ("/api/datasets", "/datasets")
    assert all(count > 1 for (_, path, _), count in server.requests.items() if path.startswith(paths))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_stays_down_is_an_error(server, pauses, fault, monkeypatch):
    monkeypatch.setattr("codec.data.hf_stream.TIMEOUT", 0.02 if fault == "stall" else 10.0)
    server.fault, server.times = fault, 10**6
    with pytest.raises(CorpusError, match="cannot open the dataset 'owner/name'") as caught:
        open_hub("owner/name", **question(streaming=True))
    assert "\n" not in str(caught.value)
    assert pauses == ([56] * RETRIES if fault == "busy" else [1, 2, 4, 8, 16, 32])  # busy: as long as it asks for


def test_a_hub_that_goes_down_later_is_an_error(server, pauses):
    corpus = open_hub("owner/name", **question(streaming=True))
    assert next(corpus.rows(1))[1]["question"] == "question 4"
    server.requests.clear()
    server.fault, server.times = "error", 10**6
    with pytest.raises(CorpusError, match="owner/name stops at row 0 of file 0") as caught:
        list(corpus.rows(0))
    assert "\n" not in str(caught.value)
    assert len(pauses) == RETRIES


@pytest.mark.parametrize("streaming", [False, True], ids=["table", "stream"])
def test_missing_datasets_and_splits_are_not_retried(server, pauses, streaming):
    for name, options in (("owner/none", {}), ("owner/name", {"split": "test"})):
        with pytest.raises(CorpusError, match="cannot open"):
            open_hub(name, **question(streaming=streaming, **options))
    assert not pauses


def test_a_downloaded_dataset_streams_from_the_cache_while_the_hub_is_down(server, pauses, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", constants.HF_HUB_CACHE / "datasets")
    server.fault = "error"
    assert open_hub("owner/name", **question(holdout=0.2)).size == 8
    assert pauses
    server.fault, server.times = "drop", 10**6
    shutil.rmtree(next(constants.HF_HUB_CACHE.glob("datasets--*")))
    rows = open_hub("owner/name", **question(streaming=True)).rows(0)
    assert [content["question"] for _, content in rows] == [f"question {i}" for i in range(8)]


@pytest.mark.parametrize("fault", ["drop", "error"])
def test_recordings_at_urls_are_retried(server, pauses, files, fault):
    server.fault = fault
    assert (
        fetch(f"{server.url}/datasets/owner/name/resolve/main/README.md", "0/0") == (files / "README.md").read_bytes()
    )
    assert pauses
