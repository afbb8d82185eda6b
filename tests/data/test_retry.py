"""Retries: which errors are final, and how long a server asks to wait."""

from types import SimpleNamespace

import aiohttp
import pyarrow as pa
import pytest

from codec.data.retry import LONGEST, RETRIES, is_transient, retried


class HttpError(Exception):
    def __init__(self, status: int, **headers: str):
        super().__init__(f"status {status}")
        self.response = SimpleNamespace(status_code=status, headers=headers)


@pytest.mark.parametrize(("status", "final"), [(403, True), (416, True), (408, False), (429, False), (503, False)])
def test_refusals_are_final(monkeypatch, status, final):
    pauses = []
    monkeypatch.setattr("codec.data.retry.time", SimpleNamespace(sleep=pauses.append))

    def fail():
        raise RuntimeError("hidden") from HttpError(status)

    with pytest.raises(RuntimeError):
        retried(fail, "a file")
    assert len(pauses) == (0 if final else RETRIES)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7), ({"ratelimit": '"api";r=0;t=20'}, 21), ({"retry-after": "9999"}, LONGEST), ({}, 1)],
)
def test_a_server_says_how_long_to_wait(monkeypatch, headers, seconds):
    pauses = []
    monkeypatch.setattr("codec.data.retry.time", SimpleNamespace(sleep=pauses.append))
    failures = iter([HttpError(429, **headers)])

    def fail_once():
        for error in failures:
            raise error
        return "read"

    assert retried(fail_once, "a file") == "read"
    assert pauses == [seconds]


def test_only_what_can_pass_is_tried_again():
    lost = [ConnectionResetError(), TimeoutError(), aiohttp.ClientPayloadError(), HttpError(503), HttpError(429)]
    final = [HttpError(404), HttpError(403), pa.ArrowInvalid("magic"), TypeError("cast"), ImportError(), KeyError("x")]
    assert [is_transient(error) for error in [*lost, *final]] == [True] * len(lost) + [False] * len(final)
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("while reading") from ConnectionError()
    assert is_transient(caught.value)
