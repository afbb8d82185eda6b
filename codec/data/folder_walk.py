"""The audio files below a folder, found by their names or their first bytes."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

AUDIO = {
    ".wav",
    ".wave",
    ".rf64",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".snd",
    ".caf",
}
AUDIO |= {".w64", ".sph", ".m4a", ".mp4", ".aac", ".webm", ".mka", ".wma", ".amr"}
OTHERS = {".txt", ".json", ".jsonl", ".csv", ".tsv", ".lab", ".textgrid", ".md", ".pt", ".npy", ".safetensors"}
MAGIC = rb"RIFF....WAVE|RF64....WAVE|FORM....AIF|fLaC|OggS|ID3|\.snd|caff|riff\x2e\x91|NIST_1A|....ftyp|\x1aE\xdf\xa3"


def find_audio(root: Path) -> tuple[list[str], Counter[str]]:
    """(sorted paths of audio files relative to `root`, number of other files by suffix). Names that begin with a point
    and `__MACOSX` are left out. Links are followed; a folder that is reached twice is read once."""
    names, others = [], Counter()
    for folder, files in _folders(root):
        for file in files:
            path = os.path.join(folder, file)
            suffix = os.path.splitext(file)[1].lower()
            if file.startswith("."):
                others["hidden"] += 1
            elif suffix in AUDIO or (suffix not in OTHERS and _begins_like_audio(path)):
                names.append(Path(os.path.relpath(path, root)).as_posix())
            else:
                others[suffix or "without suffix"] += 1
    return sorted(names), others


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """(folder, files in it) of each folder, those behind links last."""
    found, links = set(), [str(root)]
    while links:
        for folder, folders, files in os.walk(links.pop(0)):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in found:
                folders.clear()
                continue
            found.add((state.st_dev, state.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            links += [path for name in folders if os.path.islink(path := os.path.join(folder, name))]
            yield folder, files


def _begins_like_audio(path: str) -> bool:
    if not os.path.isfile(path):  # opening a pipe would block
        return False
    try:
        with open(path, "rb") as file:
            return re.match(MAGIC, file.read(12), re.DOTALL) is not None
    except OSError:
        return False
