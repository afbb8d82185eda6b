"""Reading of untrusted JSON and YAML: bounded size, plain values, validation by a schema, paths inside one folder."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from codec.utils.errors import InputError

# bytes; a report of 100,000 clips has 30 MB; decoded, text may take four times as much
MOST_TEXT = 2**26
# brackets, commas and colons of a JSON file. Each stands for at most 100 bytes of values in memory ("[]," takes 73
# bytes, '{"a":1.5},' 275), so that these take at most 0.6 GB; a report of 100,000 clips has 3 million.
MOST_SIGNS = 6_000_000
MOST_ERRORS = 1000  # that a schema may find and list; each takes about 1 kB
MOST_YAML = 2**20  # bytes, which take PyYAML half a minute; a configuration has some 10 kB


class UntrustedFileError(InputError):
    """Raised if a file is too large or invalid; the message gives the reason."""


class Schema(BaseModel):
    """Base of schemas of untrusted files: no conversion of types, finite numbers, unknown keys ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")


Model = TypeVar("Model", bound=BaseModel)


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Text of a regular UTF-8 file. Raises OSError if it cannot be opened, UntrustedFileError if it is not a regular
    file, not text, or longer than ``most`` bytes."""
    if path.exists() and not path.is_file():
        raise UntrustedFileError("it is no regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size  # `read` allocates all that it is asked for
        content = file.read(min(size, most) + 1)
    if len(content) > most:
        raise UntrustedFileError(f"it has more than {most:,} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UntrustedFileError(f"it is no text: {error}") from None


def read_json(path: Path, most: int = MOST_TEXT) -> dict[str, Any]:
    """Object in a JSON file. Raises as `read_text` does, and UntrustedFileError if it holds anything else."""
    content = parse_json(read_text(path, most))
    if not isinstance(content, dict):
        raise UntrustedFileError(f"it holds a {type(content).__name__}, not an object")
    return content


def read_json_as(path: Path, model: type[Model], most: int = MOST_TEXT) -> Model:
    """Object in a JSON file, validated. Raises as `read_json` does; messages begin with the path."""
    try:
        content = read_json(path, most)
    except UntrustedFileError as error:
        raise UntrustedFileError(f"{path}: {error}") from None
    return parse_as(model, content, path)


def parse_as(model: type[Model], content: Any, where: str | Path) -> Model:
    """Validate plain values from ``where``. Raises UntrustedFileError with the first invalid field and the reason."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        if error.error_count() > MOST_ERRORS:
            raise UntrustedFileError(f"{where}: {error.error_count():,} values do not fit") from None
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        value = "" if first["type"] in ("missing", "value_error") else f", not {first['input']!r:.80}"
        message = f"{where}: {f'{field:.80}: ' if field else ''}{reason:.200}{value}"
        raise UntrustedFileError(" ".join(message.split())) from None
    except RecursionError:
        raise UntrustedFileError(f"{where} is nested too deeply") from None


def parse_json(text: str | bytes) -> Any:
    """The values in JSON text, with finite numbers and valid characters. Raises UntrustedFileError for any other."""
    try:
        text = text if isinstance(text, str) else text.decode("utf-8")
        if sum(map(text.count, "[{,:")) > MOST_SIGNS:
            raise UntrustedFileError(f"it has more than {MOST_SIGNS:,} values, or thereabouts")
        content = json.loads(text, parse_constant=_no_constant)
        if r"\ud" in text or r"\uD" in text:  # half of a surrogate pair cannot be encoded
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise UntrustedFileError("it is nested too deeply") from None
    except UntrustedFileError:
        raise
    except ValueError as error:  # also for a number of thousands of digits
        raise UntrustedFileError(f"it is no JSON: {error}") from None
    return content


def _no_constant(name: str) -> None:
    raise UntrustedFileError(f"it holds {name}, which is no JSON")


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, by which a few lines can stand for more values than fit into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise UntrustedFileError("it has an alias (*), a reference that no file of this project has")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """Content of a YAML file of plain values. Raises as `read_json` does."""
    try:
        return yaml.load(read_text(path, MOST_YAML), Loader=_PlainLoader)
    except RecursionError:
        raise UntrustedFileError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of a million digits, the 31st of February
        raise UntrustedFileError(" ".join(str(error).split())[:300]) from None


def inside(folder: Path, name: Any) -> Path:
    """Path of ``name`` below ``folder``, links resolved. Raises UntrustedFileError if it is outside of the folder."""
    try:
        path = (folder / name).resolve()
        if isinstance(name, str) and name and folder.resolve() in path.parents:
            return path
    except (TypeError, ValueError, OSError, RuntimeError):  # no string, a zero byte, a loop of links
        pass
    raise UntrustedFileError(f"{str(name)[:200]!r} is not a file inside {folder}")
