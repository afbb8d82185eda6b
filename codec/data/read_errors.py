"""The account of recordings that could not be read."""

import logging
from collections.abc import Iterable

from codec.data.base import CorpusError

TOLERATED = 0.1  # share of the recordings
FEWEST = 3  # a small folder does not stop for one or two
ENOUGH = 200  # recordings of a stream to have met before its share of bad ones means anything
REMEDY = "too many to go on, repair the files or leave them out of the corpus"

log = logging.getLogger(__name__)


def too_many(bad: int, total: int, known: bool) -> bool:
    """Whether so many bad recordings are too many. `known`: the total is of the corpus, not of what was met so far."""
    if known and bad and bad >= total:
        return True
    return (known or total >= ENOUGH) and bad >= FEWEST and bad > TOLERATED * total


class ReadErrors:
    """Names each bad recording once, counts them, and stops the run when they are too many.

    `size` is the number of recordings, None for a stream: then the recordings met so far are counted instead.
    Each rank keeps its own account.
    """

    def __init__(self, size: int | None):
        self.size = size
        self.bad: dict[str, str] = {}
        self._met: set[int] = set()  # hashes of names: a stream may be long

    def add(self, skipped: Iterable[tuple[str, str]], files: Iterable[str] = ()) -> None:
        """Note what was skipped and what was read. Raises CorpusError when too much is bad."""
        if self.size is None:
            self._met.update(hash(file) for file in files)
        for file, reason in skipped:
            if file not in self.bad:
                self.bad[file] = reason
                log.warning("skipped %s: %s", file, reason)
        if too_many(len(self.bad), self._total(), self.size is not None):
            raise CorpusError(f"{self.summary()}: {REMEDY}.")

    def summary(self) -> str:
        """One line for the end of a run."""
        if not self.bad:
            return "every recording met could be read"
        first = ", ".join(f"{file} {reason}" for file, reason in list(self.bad.items())[:3])
        more = ", ..." if len(self.bad) > 3 else ""
        return f"{len(self.bad)} of {self._total()} recordings cannot be read ({first}{more})"

    def _total(self) -> int:
        return len(self._met) + len(self.bad) if self.size is None else self.size
