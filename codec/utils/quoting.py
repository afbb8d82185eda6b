"""Quoting of options in commands that a user pastes into a shell."""

import re
import shlex

# read by Hydra's grammar as text without quotes; not a number or a word with a meaning
PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan|[\d_.eE+-]*)$)[\w./-][\w./@%+-]*", re.ASCII | re.IGNORECASE)


def override(key: str, value: object) -> str:
    """``key=value`` for Hydra, with its quotes where they are needed."""
    text = str(value)
    if not PLAIN.fullmatch(text):
        text = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', r"\""), text)
        text = '"' + text.replace("${", r"\${") + '"'
    return f"{key}={text}"


def option(key: str, value: object) -> str:
    """``key=value`` for train.py and eval.py in a shell, with Hydra's quotes and the shell's where they are needed."""
    return shlex.quote(override(key, value))
