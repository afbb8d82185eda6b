"""Redaction of secrets in configurations, their copies in checkpoints and loggers, commands and logs."""

import logging
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from codec.utils.atomic import write_atomic

HIDDEN = "HIDDEN"  # stands for a secret; no interpolation, no YAML syntax, no quoting in a shell
WORDS = "token|secret|passw(or)?d|credential|authorization|cookie|bearer|connection_?string"  # anywhere in a name
NAME = re.compile(
    rf"(^|[_\-.])(api_?key|key|auth|pwd|pw|passphrase)s?$|access_?key|account_?key|{WORDS}",
    re.IGNORECASE,
)
# names under which a number is a secret, too; not `n_tokens` or `pad_token`
NUMBER = re.compile(r"(^|[_\-.])(pwd|pw|pin|passphrase|api_?key)$|secret|passw(or)?d|credential", re.IGNORECASE)
# user:password@, or token@, up to the last @: a password may contain @ and /. Hydra writes \: for a colon in a list.
# In hf:// URLs, the part before an @ is the name of a dataset.
IN_URL = re.compile(r"(?P<scheme>(?<![a-z0-9+.-])(?!hf\\?:)[a-z][a-z0-9+.-]*\\?://)[^\s\"']+@", re.IGNORECASE)
ASKED = r"[\w.-]*(?:key(?:id)?|token|secret|passw(?:or)?d|pwd|sig(?:nature)?|credential|auth)"
QUERY = rf"(?P<name>[?&;]{ASKED}=)[^&;\s\"'#]+"
IN_QUERY = re.compile(QUERY, re.IGNORECASE)
BEARER = re.compile(r"\b(?P<name>bearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
PAIR = re.compile(r"(?P<name>[\w.-]+)\s*:\s*")  # the beginning of one in Hydra's {name: value, ...}
# tokens of Hugging Face, GitHub and AWS, which have a form of their own
KNOWN = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16})\b")


def redact(value: Any, name: str = "") -> Any:
    """A plain value with ``HIDDEN`` in place of every secret: strings under names like ``*_key``, ``*token*``,
    ``*secret*`` or ``password``, numbers under some of them, and within strings ``user:password@`` of URLs, ``?token=``
    and tokens of well-known forms. ``name`` is that of the value.
    """
    if isinstance(value, dict):
        return {key: redact(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner, name) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and NUMBER.search(name):
        return HIDDEN
    if not isinstance(value, str) or not value:
        return value
    if is_secret(name) and not value.startswith("${"):  # an interpolation names the place of the secret
        return HIDDEN
    if name == "override_dirname":  # Hydra's: several, with commas
        return _redact_braces(",".join(map(redact_override, value.split(","))))
    return redact_override(value)


def redact_override(override: str) -> str:
    """``key=value`` of the command line, redacted."""
    key, equals, value = override.partition("=")
    if equals and is_secret(key.lstrip("+~").partition("@")[0]) and not value.startswith("${"):
        return f"{key}={HIDDEN}"
    if equals and value.startswith(("{", "[")):
        value = _redact_braces(value)
    return redact_text(f"{key}{equals}{value}")


def redact_arguments() -> None:
    """Redact ``sys.argv``, which libraries copy, after it has been parsed."""
    sys.argv[1:] = map(redact_override, sys.argv[1:])


def is_secret(name: str) -> bool:
    """Whether the value of a (dotted) name is to be hidden. Names like ``token_rate`` are, too: rather one too many."""
    return bool(NAME.search(name.rpartition(".")[2]))


def redact_hydra(folder: Path) -> None:
    """Redact the files that Hydra writes at the start of a run or sweep: ``.hydra/*.yaml`` and ``multirun.yaml``."""
    for file in [*sorted((folder / ".hydra").glob("*.yaml")), *folder.glob("multirun.yaml")]:
        _redact_file(file)


class NoSecrets(logging.Filter):
    """Redacts log messages, such as the URL of a server that does not answer."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # the arguments do not fit the format: the handler reports it
            return True
        if (hidden := redact_text(message)) != message:
            record.msg, record.args = hidden, None
        return True


def _redact_file(file: Path) -> None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError:  # incomplete: another rank is writing it, and will redact it
        return
    hidden = redact(content)
    if hidden != content:
        write_atomic(file, yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True))


def _redact_braces(text: str) -> str:
    """A dictionary or list in Hydra's syntax, with the values of secret names hidden at any depth."""
    pieces, at = [], 0
    while found := PAIR.search(text, at):
        pieces.append(text[at : found.end()])
        at = found.end()
        if is_secret(found["name"]) and not text.startswith("${", at):
            pieces.append(HIDDEN)
            at = _end(text, at)
    return "".join([*pieces, text[at:]])


def _end(text: str, at: int) -> int:
    """The end of the value that begins at ``at``: the comma or closing bracket that is not its own."""
    depth, quote = 0, ""
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 1
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "{[(":
            depth += 1
        elif depth == 0 and sign in ",}])":
            return at
        elif sign in "}])":
            depth -= 1
        at += 1
    return len(text)


def redact_text(text: str) -> str:
    """A text with secrets hidden that need no name to be recognised: in URLs, and tokens of well-known forms."""
    text = IN_URL.sub(rf"\g<scheme>{HIDDEN}@", text)
    for pattern in (IN_QUERY, BEARER):
        text = pattern.sub(rf"\g<name>{HIDDEN}", text)
    return KNOWN.sub(HIDDEN, text)
