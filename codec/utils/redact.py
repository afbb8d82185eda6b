"""Secrets left out of what is kept and shown: configurations, their copies in checkpoints and loggers, commands."""

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
# under these, a number is a secret too; not under `n_tokens` or `pad_token`
NUMBER = re.compile(r"(^|[_\-.])(pwd|pw|pin|passphrase|api_?key)$|secret|passw(or)?d|credential", re.IGNORECASE)
# user:password@, or token@, to the last one: a password may have an @ or a / in it. Hydra writes \: for a colon within
# a list. At hf://, what stands before an @ is the name of a dataset.
IN_URL = re.compile(r"(?P<scheme>(?<![a-z0-9+.-])(?!hf\\?:)[a-z][a-z0-9+.-]*\\?://)[^\s\"']+@", re.IGNORECASE)
ASKED = r"[\w.-]*(?:key(?:id)?|token|secret|passw(?:or)?d|pwd|sig(?:nature)?|credential|auth)"
QUERY = rf"(?P<name>[?&;]{ASKED}=)[^&;\s\"'#]+"
IN_QUERY = re.compile(QUERY, re.IGNORECASE)
BEARER = re.compile(r"\b(?P<name>bearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
PAIR = re.compile(r"(?P<name>[\w.-]+)\s*:\s*")  # the beginning of one in Hydra's {name: value, ...}
# what services call their tokens, wherever they stand: Hugging Face, GitHub, AWS
KNOWN = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16})\b")


def redact(value: Any, name: str = "") -> Any:
    """A plain value with ``HIDDEN`` for every secret: text under a name like ``*_key``, ``*token*``, ``*secret*`` or
    ``password``, numbers under some of them, and within text ``user:password@`` of addresses, ``?token=`` and tokens of
    well-known forms.

    Args:
        name: what the value is called, if anything.
    """
    if isinstance(value, dict):
        return {key: redact(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner, name) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and NUMBER.search(name):
        return HIDDEN
    if not isinstance(value, str) or not value:
        return value
    if is_secret(name) and not value.startswith("${"):  # an interpolation tells where the secret is, not what
        return HIDDEN
    if name == "override_dirname":  # Hydra's: several, with commas
        return _inside(",".join(map(redact_override, value.split(","))))
    return redact_override(value)


def redact_override(override: str) -> str:
    """The same of ``key=value``, as on the command line."""
    key, equals, value = override.partition("=")
    if equals and is_secret(key.lstrip("+~").partition("@")[0]) and not value.startswith("${"):
        return f"{key}={HIDDEN}"
    if equals and value.startswith(("{", "[")):
        value = _inside(value)
    return redact_text(f"{key}{equals}{value}")


def redact_arguments() -> None:
    """Hide the secrets in the arguments of the program, which have been parsed, and of which libraries keep copies."""
    sys.argv[1:] = map(redact_override, sys.argv[1:])


def is_secret(name: str) -> bool:
    """Whether a value of this (dotted) name is one to hide. ``token_rate`` is one too many: rather so than too few."""
    return bool(NAME.search(name.rpartition(".")[2]))


def redact_hydra(folder: Path) -> None:
    """Hide the secrets in what Hydra has written of a run, or a sweep, before it began: the YAML files in ``.hydra``
    and ``multirun.yaml``.

    Each file is replaced in one step, and only if there is something to hide.
    """
    for file in [*sorted((folder / ".hydra").glob("*.yaml")), *folder.glob("multirun.yaml")]:
        _redact_file(file)


class NoSecrets(logging.Filter):
    """Hides secrets in what is logged, such as the address of a server that does not answer."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit: the handler says so, and nothing ends
            return True
        if (hidden := redact_text(message)) != message:
            record.msg, record.args = hidden, None
        return True


def _redact_file(file: Path) -> None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError:  # half of a file, which another process of this run is writing: it does this in its turn
        return
    hidden = redact(content)
    if hidden != content:
        write_atomic(file, yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True))


def _inside(text: str) -> str:
    """A dictionary or list, as Hydra reads it, without the values of secret names, however deep."""
    kept, at = [], 0
    while found := PAIR.search(text, at):
        kept.append(text[at : found.end()])
        at = found.end()
        if is_secret(found["name"]) and not text.startswith("${", at):
            kept.append(HIDDEN)
            at = _end(text, at)
    return "".join([*kept, text[at:]])


def _end(text: str, at: int) -> int:
    """Where the value that begins at ``at`` ends: before the comma or bracket that is not its own."""
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
    """A text with ``HIDDEN`` for what is a secret whatever its name: in addresses, and tokens of well-known forms."""
    text = IN_URL.sub(rf"\g<scheme>{HIDDEN}@", text)
    for pattern in (IN_QUERY, BEARER):
        text = pattern.sub(rf"\g<name>{HIDDEN}", text)
    return KNOWN.sub(HIDDEN, text)
