"""A Hub that fails for a while: no wait without an end, which errors are worth another try, and when it comes.

`huggingface_hub` tries most requests again by itself (5 times, within 23 seconds or as long as the Hub asks for), but
not all that opening a dataset takes; and for some answers it would wait for ever.
"""

import time
from collections.abc import Iterator

from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import httpx, parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory

RETRIES = 6  # after 1, 2, 4, ... seconds
PATIENCE = 30.0  # seconds without a byte, after which a connection is given up
LONGEST = 300  # seconds: the window in which the Hub counts requests


def reason(error: BaseException) -> str:
    """What an error says, for the middle of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def passing(error: BaseException) -> bool:
    """Whether the network, or a server that has too much to do, is behind an error, so that it may pass."""
    if constants.is_offline_mode() or any(isinstance(one, OfflineModeIsEnabled) for one in _behind(error)):
        return False
    for one in _behind(error):
        status = getattr(getattr(one, "response", None), "status_code", 0)
        if isinstance(one, httpx.TransportError | ConnectionError | TimeoutError) or status in (408, 429):
            return True
        if status >= 500:
            return True
    return False


def pause(error: BaseException, failures: int) -> None:
    """Wait before another try: 1, 2, 4, ... seconds after the first, second, third failure in a row, or as long as a
    Hub that was asked too often wants to be left alone."""
    time.sleep(max([2 ** (failures - 1), *map(_asked, _behind(error))]))


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it, hidden ones (``from None``) as well: `datasets` makes missing files of dead
    lines."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _asked(error: BaseException) -> int:
    headers = getattr(getattr(error, "response", None), "headers", {})
    limit, after = parse_ratelimit_headers(headers), headers.get("retry-after", "")
    seconds = limit.reset_in_seconds + 1 if limit and not limit.remaining else int(after) if after.isdigit() else 0
    return min(seconds, LONGEST)


def _limit(request: httpx.Request) -> None:
    """The listing of files is asked for without any limit, the facts of a dataset with 100 seconds."""
    limits = request.extensions["timeout"]
    request.extensions["timeout"] = {kind: min(seconds or PATIENCE, PATIENCE) for kind, seconds in limits.items()}


def _client() -> httpx.Client:
    client = default_client_factory()
    client.event_hooks = {**client.event_hooks, "request": [*client.event_hooks["request"], _limit]}
    return client


set_client_factory(_client)  # on import: also in a process that has been spawned to read
