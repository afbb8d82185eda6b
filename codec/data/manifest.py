"""Reading a manifest, which may be somebody else's: a CSV file, row by row, of what fits in memory."""

import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from codec.data.base import CorpusError

# Bytes of memory of the rows. One with a name, a speaker and 80 letters of text takes 340: three million of them fit.
MOST_MEMORY = 10**9
LONGEST = 2**20  # letters of a row
SHARED = {"speaker", "split"}  # few, of many rows


class Row(NamedTuple):
    """A recording in a manifest; "" is a cell that is empty, or not there."""

    file: str
    speaker: str = ""
    text: str = ""
    split: str = ""
    phones: str = ""


def read_manifest(path: Path) -> tuple[list[Row], list[str]]:
    """(rows, names of the columns) of a CSV file of UTF-8 with a header; other columns than a row's are left out.

    Raises CorpusError if there is no such file, or it is something else, or takes more than 1 GB of memory.
    """
    try:
        if path.exists() and not path.is_file():
            raise CorpusError(f"the manifest {path} is no regular file.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _rows(file, path)
    except OSError as error:
        raise CorpusError(f"cannot open the manifest {path}: {error.strerror}.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CorpusError(f"the manifest {path} is no CSV file of UTF-8 ({error}): save it as one.") from None


def _rows(file: TextIO, path: Path) -> tuple[list[Row], list[str]]:
    length = 0  # of a row so far: there is no end to the lines that it may have

    def lines() -> Iterator[str]:
        nonlocal length
        while line := file.readline(LONGEST + 1):
            length += len(line)
            if length > LONGEST:
                raise CorpusError(f"the manifest {path} has a row of more than {LONGEST:,} letters: it is no manifest.")
            yield line

    reader = csv.reader(lines(), strict=True)
    columns = next(reader, [])
    places = {name: columns.index(name) for name in Row._fields if name in columns}
    kept: dict[str, str] = {}  # each speaker and split once
    rows, room = [], MOST_MEMORY
    for cells in reader:
        length = 0
        if not cells:
            continue
        if len(cells) > len(columns):
            raise CorpusError(f"row {len(rows) + 1} of the manifest {path} has more cells than there are columns.")
        facts = {name: cells[place] for name, place in places.items() if place < len(cells) and cells[place]}
        for name in facts.keys() & SHARED:
            if facts[name] not in kept:
                room -= 2 * sys.getsizeof(facts[name])
            facts[name] = kept.setdefault(facts[name], facts[name])
        row = Row(**{"file": "", **facts})
        room -= sys.getsizeof(row) + sum(sys.getsizeof(facts[name]) for name in facts.keys() - SHARED)
        if room < 0:
            raise CorpusError(
                f"the manifest {path} takes more than {MOST_MEMORY:,} bytes: split the corpus and mix it."
            )
        rows.append(row)
    return rows, columns


def phones_are_timed(phones: str) -> bool:
    """Whether this is ``symbol@seconds symbol@seconds ...``, in the order of their times, or nothing."""
    before = 0.0
    for phone in phones.split():
        symbol, _, time = phone.rpartition("@")
        try:
            start = float(time)
        except ValueError:
            return False
        if not symbol or not before <= start < math.inf:
            return False
        before = start
    return True
