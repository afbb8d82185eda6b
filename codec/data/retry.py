"""Retries with exponential back-off, for reads over a network."""

import itertools
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from codec.utils.redact import redact_text

RETRIES = 6  # after 1, 2, 4, ... 32 seconds: a minute in all

log = logging.getLogger(__name__)
T = TypeVar("T")


def retried(read: Callable[[], T], what: str, permanent: Callable[[Exception], bool] = lambda error: False) -> T:
    """Result of `read()`, called again after errors that are not `permanent`; the last error is raised."""
    for attempt in itertools.count():
        try:
            return read()
        except Exception as error:  # of many classes: the network's, the protocols' and the parsers' own
            if attempt == RETRIES or permanent(error):
                raise
            log.warning("%s: %s; trying again", what, reason(error))
            time.sleep(2**attempt)


def reason(error: BaseException) -> str:
    """First line of an error's message, without credentials, for use within a sentence."""
    return redact_text((str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."))
