"""Count of unreadable recordings, with a limit at which a run ends."""

import logging
from collections.abc import Iterable

from codec.data.base import CorpusError
from codec.utils.errors import shortened

TOLERATED = 0.1  # share of the recordings
FEWEST = 3  # unreadable recordings below which a run never ends, unless there are no others
ENOUGH = 200  # recordings of a stream before its share of unreadable ones is significant

log = logging.getLogger(__name__)


def check_share(bad: int, size: int | None, read: int, summary: str = "") -> None:
    """Raise CorpusError if too many of `size` recordings are unreadable; of those `read` so far if `size` is None."""
    total = read if size is None else size
    if (size is not None and 0 < total <= bad) or (
        (size is not None or total >= ENOUGH) and bad >= FEWEST and bad > TOLERATED * total
    ):
        summary = summary or f"{bad} of {total} recordings cannot be read"
        raise CorpusError(
            f"{summary}: too many (limit {TOLERATED:.0%}), repair the files or remove them from the corpus."
        )


class ReadErrors:
    """Log and count unreadable recordings, each once; raise CorpusError if there are too many. `size` is the number of
    recordings; if None (a stream), the share is of those read so far. Each rank counts its own."""

    def __init__(self, size: int | None):
        self.size = size
        self.bad: dict[str, str] = {}
        self._read: set[int] = set()  # hashes of names: a stream may be long

    def add(self, skipped: Iterable[tuple[str, str]], files: Iterable[str] = ()) -> None:
        """Add (name, reason) of skipped recordings and names of the others. Raises CorpusError if too many are bad."""
        if self.size is None:
            self._read.update(hash(file) for file in files)
        for file, reason in skipped:
            if file not in self.bad:
                self.bad[file] = reason
                log.warning("skipped %s", shortened(f"{file}: {reason}"))
        check_share(len(self.bad), self.size, len(self._read) + len(self.bad), self.summary())

    def summary(self) -> str:
        """One line for the end of a run."""
        if not self.bad:
            return "all recordings could be read"
        first = ", ".join(f"{file} {reason}" for file, reason in list(self.bad.items())[:3])
        more = ", ..." if len(self.bad) > 3 else ""
        total = len(self._read) + len(self.bad) if self.size is None else self.size
        return shortened(f"{len(self.bad)} of {total} recordings cannot be read ({first}{more})")
