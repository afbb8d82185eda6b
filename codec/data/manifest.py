"""Reading of manifests, tables (CSV or JSON lines) that list the recordings of a folder, in bounded memory."""

import csv
import difflib
import itertools
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from codec.data.base import CorpusError
from codec.utils.safe_io import parse_json

MOST_MEMORY = 10**9  # bytes of all rows; one with a name, a speaker and 80 letters of text takes 340
LONGEST = 2**20  # characters of a row
SHARED = {"speaker", "split"}  # few values for many rows
FILE = (
    "file",
    "audio_filepath",
    "audio_file",
    "audio_path",
    "file_name",
    "filename",
    "file_path",
    "filepath",
    "path",
    "wav",
)
SPEAKER = ("speaker", "speakers", "speaker_id", "speakerid", "spk", "spk_id", "client_id")  # names of that column

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A recording in a manifest; "" stands for a missing or empty cell."""

    file: str
    speaker: str = ""
    text: str = ""
    split: str = ""
    phones: str = ""


def read_manifest(path: Path) -> tuple[list[Row], list[str]]:
    """(rows, column names) of a file in UTF-8: JSON lines, or CSV with a header, its separator one of , ; | and tabs.
    The first of FILE is `file`, of SPEAKER `speaker`, in any case; columns that `Row` lacks are ignored. Raises
    CorpusError if it cannot be read, is of another form, or takes more than 1 GB of memory."""
    try:
        if path.exists() and not path.is_file():
            raise CorpusError(f"the manifest {path} is no regular file.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _rows(file, path)
    except OSError as error:
        raise CorpusError(f"cannot open the manifest {path}: {error.strerror}.") from None
    except (csv.Error, ValueError) as error:
        raise CorpusError(
            f"the manifest {path} is no CSV file or JSON lines in UTF-8 ({error}): save it as one."
        ) from None


def _rows(file: TextIO, path: Path) -> tuple[list[Row], list[str]]:
    length = 0  # of the row so far, which may have any number of lines

    def lines() -> Iterator[str]:
        nonlocal length
        while line := file.readline(LONGEST + 1):
            length += len(line)
            if length > LONGEST:
                raise CorpusError(f"the manifest {path} has a row of more than {LONGEST:,} characters.")
            yield line

    reader = _cells(lines())
    columns = next(reader, [])
    positions = {name: columns.index(name) for name in Row._fields if name in columns}
    for name in {*columns} - {*Row._fields}:
        if near := difflib.get_close_matches(name, {*Row._fields} - {*columns}, 1, 0.7):
            log.warning("the column %r of the manifest %s is ignored: is it meant to be %r?", name, path, near[0])
    shared: dict[str, str] = {}
    rows, memory = [], 0
    for cells in reader:
        length = 0
        if not cells:
            continue
        if len(cells) > len(columns):
            raise CorpusError(f"row {len(rows) + 1} of the manifest {path} has more cells than there are columns.")
        values = {name: cells[at] for name, at in positions.items() if at < len(cells) and cells[at]}
        memory += sum(sys.getsizeof(value) for name, value in values.items() if name not in SHARED)
        for name in values.keys() & SHARED:
            values[name] = values[name].strip()
            if values[name] not in shared:
                memory += 2 * sys.getsizeof(values[name])
            values[name] = shared.setdefault(values[name], values[name])
        rows.append(Row(**{"file": "", **values}))
        memory += sys.getsizeof(rows[-1])
        if memory > MOST_MEMORY:
            raise CorpusError(f"the manifest {path} takes more than {MOST_MEMORY:,} bytes: split the corpus, mix it.")
    return rows, columns


def _cells(lines: Iterator[str]) -> Iterator[list[str]]:
    """The names of the columns, then the cells of each row."""
    first = next(lines, "")
    lines = itertools.chain([first], lines)
    if first.lstrip().startswith("{"):
        yield from _objects(lines)
        return
    separator = max(",;\t|", key=first.count)
    quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL  # text in TSV has unpaired quotes
    reader = csv.reader(lines, strict=True, delimiter=separator, quoting=quoting, skipinitialspace=True)
    yield _named(next(reader, []))
    yield from reader


def _objects(lines: Iterator[str]) -> Iterator[list[str]]:
    rows = []
    for line in filter(str.strip, lines):
        row = parse_json(line)
        if not isinstance(row, dict):
            raise ValueError("a row is no object")
        if row.get("offset"):
            raise ValueError("rows with an offset are parts of recordings, which must be cut into files")
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))  # a key may be missing in the first rows
    yield _named(columns)
    for row in rows:
        yield ["" if row.get(name) is None else str(row[name]) for name in columns]


def _named(columns: list[str]) -> list[str]:
    """The names in lower case, with the first of FILE called `file` and of SPEAKER `speaker`."""
    columns = ["_".join(name.lower().split()) for name in columns]
    for field, names in (("file", FILE), ("speaker", SPEAKER)):
        found = next((name for name in names if name in columns), field)
        columns = [field if name == found else name for name in columns]
    return columns


def phones_are_timed(phones: str) -> bool:
    """Whether a string is "symbol@seconds symbol@seconds ..." in order of time, or empty."""
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
