"""Retries with exponential back-off, for reads over a network."""

import errno
import itertools
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from codec.utils.errors import shortened
from codec.utils.redact import redact_text

RETRIES = 6  # after 1, 2, 4, ... 32 seconds, a minute in all, or as long as the server asks
LONGEST = 300  # seconds: the window in which the Hub counts requests
NETWORK = ("aiohttp", "botocore", "http", "httpcore", "httpx", "httpx2", "requests", "ssl", "urllib3")
ANSWER = "ClientError"  # botocore's, of what a server has answered

log = logging.getLogger(__name__)
T = TypeVar("T")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it, hidden ones (``from None``) as well."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int:
    """HTTP status of an error of httpx, requests or aiohttp; 0 if it has none."""
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status", None)
    return status if isinstance(status, int) else 0


def is_transient(error: BaseException) -> bool:
    """Whether a lost connection, an overloaded server or a failing disk caused an error, and not what was read."""
    return any(
        isinstance(one, ConnectionError | TimeoutError)
        or (isinstance(one, OSError) and one.errno in (errno.EIO, errno.EBUSY, errno.ESTALE))
        or (_of_network(one) and type(one).__name__ != ANSWER and not status_of(one))
        or status_of(one) in (408, 429)
        or status_of(one) >= 500
        for one in causes(error)
    )


def _of_network(error: BaseException) -> bool:
    """Whether an error is of the network; malformed addresses and certificates are ValueErrors."""
    return type(error).__module__.partition(".")[0] in NETWORK and not isinstance(error, ValueError)


def retried(read: Callable[[], T], what: str, passes: Callable[[BaseException], bool] = is_transient) -> T:
    """Result of `read()`, called again after errors that may pass; the last error is raised."""
    for attempt in itertools.count():
        try:
            return read()
        except Exception as error:  # of many classes: the network's, the protocols' and the parsers' own
            if attempt == RETRIES or not passes(error):
                raise
            log.warning("%s: %s; trying again", what, reason(error))
            time.sleep(max(2**attempt, *map(_asked, causes(error))))


def _asked(error: BaseException) -> int:
    """Seconds that a server asks to wait (Retry-After, or the Hub's RateLimit), at most LONGEST."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
    after, limit = str(headers.get("retry-after", "")), str(headers.get("ratelimit", ""))
    reset = re.search(r"\br=0\b.*\bt=(\d{1,6})\b", limit)
    seconds = int(after) if after.isdigit() and len(after) < 7 else int(reset.group(1)) + 1 if reset else 0
    return min(seconds, LONGEST)


def reason(error: BaseException) -> str:
    """First line of an error's message, shortened and without credentials, for use within a sentence."""
    return shortened(redact_text((str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")), 200)
