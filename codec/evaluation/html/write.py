"""The pages of an evaluation, beside its reports."""

from collections.abc import Sequence
from pathlib import Path

from codec.evaluation.html.base import TIMING, SystemResult
from codec.evaluation.report import write_json


def write_pages(folder: Path, results: Sequence[SystemResult], title: str, listening: int = 0) -> list[Path]:
    """Write ``report.html``, ``timing.json`` and, if ``listening`` (clips) > 0, ``listening.html`` -> the pages."""
    from codec.evaluation.html.listening import write_listening_test  # with matplotlib and jinja2
    from codec.evaluation.html.report import write_page

    write_json(folder / TIMING, {result.name: result.timing for result in results})
    pages = [write_page(folder / "report.html", results, title)]
    if listening:
        pages.append(write_listening_test(folder / "listening.html", results, title, listening))
    return pages
