"""The audio files below a folder, found by their names or their first bytes."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

AUDIO = {".wav", ".wave", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd"}
AUDIO |= {".caf", ".w64", ".sph", ".m4a", ".mp4", ".aac", ".webm", ".mka", ".wma", ".amr"}
OTHERS = {".txt", ".json", ".jsonl", ".csv", ".tsv", ".lab", ".textgrid", ".md", ".pt", ".npy", ".safetensors"}
MAGIC = rb"RIFF....WAVE|RF64....WAVE|FORM....AIF|fLaC|OggS|ID3|\.snd|caff|riff\x2e\x91|NIST_1A|....ftyp|\x1aE\xdf\xa3"


def find_audio(root: Path) -> tuple[list[str], Counter[str]]:
    """(sorted paths of audio files relative to `root`, number of other files by suffix). Names that begin with a point,
    `__MACOSX`, and this program's own runs and reports are left out. Links are followed; a folder that is reached twice
    is read once."""
    names, others = [], Counter()
    for folder, files in _folders(root, others):
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


def _folders(root: Path, others: Counter[str]) -> Iterator[tuple[str, list[str]]]:
    """(folder, files in it) of each folder, those behind links last; folders of runs are counted in `others`."""
    found, links = set(), [str(root)]
    while links:
        for folder, folders, files in os.walk(links.pop(0)):
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in found:
                folders.clear()
                continue
            found.add((state.st_dev, state.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
            if own := [name for name in folders if _is_output(Path(folder), name, files)]:
                others["folders of runs"] += len(own)
                folders[:] = [name for name in folders if name not in own]
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


def _is_output(folder: Path, name: str, files: Sequence[str]) -> bool:
    """Whether a subfolder is a run's, or has the sound of a report among the `files` of the folder."""
    if all((folder / name / file).is_file() for file in ("config.yaml", "parts.json")):
        return True
    report = any({f"{file[:-3]}.json", f"{file[:-3]}.csv"} <= {*files} for file in files if file.endswith(".md"))
    return name == "audio" and (report or {"config.yaml", "parts.json"} <= {*files})
