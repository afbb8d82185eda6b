"""The user's cache folder: $CODEC_CACHE, or ~/.cache/codec."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def cache_dir() -> Path:
    return Path(os.environ.get("CODEC_CACHE") or Path.home() / ".cache" / "codec").expanduser()


def key(*parts: object) -> str:
    """A short name that is the same for the same parts, in every process."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


def fingerprint(crops: Any) -> str:
    """Of a corpus: its first crops hang on every recording, on which are held out, and on the seed of the draws."""
    digest = hashlib.blake2b()
    for n in range(8):
        item = crops[n]
        digest.update(item["wav"].numpy().tobytes() + repr(item["phones"]).encode())
    return digest.hexdigest()


def load_json(path: Path) -> dict:
    """The content of `path`, or {} where there is none that can be used."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def save_json(path: Path, content: dict) -> None:
    """Write in one step, so that nobody meets half a file; failing to write costs only time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with open(handle, "w") as file:
                json.dump(content, file)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
