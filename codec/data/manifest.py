"""Reading a manifest, which may be somebody else's: a CSV file of bounded size."""

import csv
import math
from pathlib import Path

from codec.data.base import CorpusError

MOST_BYTES = 2**29  # five million recordings or so


def read_manifest(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """(rows, names of the columns) of a CSV file of UTF-8 with a header; a cell that a row lacks is None.

    Raises CorpusError if there is no such file, or it is something else.
    """
    try:
        if path.exists() and not path.is_file():
            raise CorpusError(f"the manifest {path} is no regular file.")
        if path.stat().st_size > MOST_BYTES:
            raise CorpusError(f"the manifest {path} has more than {MOST_BYTES:,} bytes: split the corpus and mix it.")
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows, columns = list(reader), list(reader.fieldnames or [])
    except OSError as error:
        raise CorpusError(f"cannot open the manifest {path}: {error.strerror}.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CorpusError(f"the manifest {path} is no CSV file of UTF-8 ({error}): save it as one.") from None
    for number, row in enumerate(rows):
        if None in row:
            raise CorpusError(f"row {number + 1} of the manifest {path} has more cells than there are columns.")
    return rows, columns


def phones_are_timed(phones: str) -> bool:
    """Whether this is ``symbol@seconds symbol@seconds ...``, or nothing."""
    for phone in phones.split():
        symbol, _, time = phone.rpartition("@")
        try:
            if not symbol or not math.isfinite(float(time)):
                return False
        except ValueError:
            return False
    return True
