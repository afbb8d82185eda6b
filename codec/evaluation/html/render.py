"""Self-contained HTML files from the templates, styles and scripts of this folder."""

import functools
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from codec.evaluation.html.tables import number

HERE = Path(__file__).parent
MB = 1_000_000


@functools.cache  # the environment caches compiled templates
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(HERE, encoding="utf-8")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    return environment


def render(template: str, scripts: list[str], **values: Any) -> str:
    """A template filled with ``values`` (escaped), the style sheet ``page.css`` and these scripts."""
    style = Markup((HERE / "page.css").read_text(encoding="utf-8"))
    script = Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in scripts))
    return _environment().get_template(template).render(style=style, script=script, **values)


def embedded_json(data: Any) -> Markup:
    """Data as JSON for a script element, escaped so that it cannot end the element. Raises ValueError for NaN."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
