"""Templates, styles and scripts beside this file -> one file that asks for nothing else."""

import functools
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from codec.evaluation.html.tables import number
from codec.evaluation.report import write_atomic

HERE = Path(__file__).parent
MB = 1_000_000


@functools.cache  # which keeps the templates that it has compiled
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE, encoding="utf-8")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    return environment


def render(template: str, scripts: list[str], **values: Any) -> str:
    """A template with ``values``, all escaped, the style sheet ``page.css`` and these scripts."""
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    script = Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in scripts))
    return _environment().get_template(template).render(style=style, script=script, **values)


def embedded(data: Any) -> Markup:
    """Data as JSON inside a script element: nothing in it can end that element.

    Raises ValueError for NaN, which is no JSON.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def save(path: str | Path, text: str) -> Path:
    """Write a page whole or not at all, with its folder if need be; returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return path
