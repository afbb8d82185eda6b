"""What a program needs of its environment, set where the environment does not have it: notebooks, containers, old
locales."""

import contextlib
import locale
import os
import pwd
import sys
import tempfile
from pathlib import Path


def prepare() -> None:
    """Set up a program, before it imports anything large: pictures without a display, files in UTF-8, characters that
    the terminal lacks replaced, and a name and a home for a user that has none."""
    os.environ["MPLBACKEND"] = "agg"  # notebooks pass theirs on, which a program cannot import
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if locale.getencoding().lower() not in ("utf-8", "utf8"):
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # also of the files of libraries
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:  # a container with the user id of another machine
        os.environ.setdefault("USER", f"user{os.getuid()}")
        os.environ.setdefault("HOME", str(temporary_home()))


def temporary_home() -> Path:
    """A folder of this user alone, which is made, for what can be computed again, where the home cannot be written.

    Raises PermissionError if another user has one of its name."""
    folder = Path(tempfile.gettempdir(), f"codec-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: name a folder of yours in HOME or CODEC_CACHE")
    return folder
