"""Everything that is to be looked at, beside the reports."""

import json
from collections.abc import Sequence
from pathlib import Path

from codec.evaluation.html.base import TIMING, Entry
from codec.evaluation.html.listening import write_listening_test
from codec.evaluation.html.report import write_page
from codec.evaluation.report import plain, write_atomic


def write_pages(folder: Path, entries: Sequence[Entry], title: str, listening: int = 0) -> list[Path]:
    """Write ``report.html``, ``listening.html`` with so many clips (0: none), and ``timing.json`` -> the pages.

    Timings are apart from the reports because they never come out equal twice. Each file appears whole or not at all.

    Raises:
        PageError: if a page cannot be made of these systems.
        ReportError: if a report names a sound file that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    timing = plain({entry.name: entry.timing for entry in entries})
    write_atomic(folder / TIMING, json.dumps(timing, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    pages = [write_page(folder / "report.html", entries, title)]
    if listening:
        pages.append(write_listening_test(folder / "listening.html", entries, title, listening))
    return pages
