"""A corpus from any folder of audio files, with or without a manifest."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG

import numpy as np

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import CorpusError, Recording, given
from codec.data.folder_walk import find_audio
from codec.data.indexed import IndexedCorpus, split
from codec.data.manifest import Row, phones_are_timed, read_manifest
from codec.utils.cache import cache_dir, cache_key, load_json, save_json
from codec.utils.errors import shortened

# folders named as speakers often are: 1034 (LibriSpeech), p225 (VCTK), id10270 (VoxCeleb), S0002 (AISHELL), speaker_7
SPEAKER = re.compile(r"(p|s|id|spk|spkr|speaker)?[-_ ]?\d+", re.IGNORECASE)
MOST_ODD = 0.1  # share of the files whose folders may have other names

SPLITS = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation", "dev"), "val")

log = logging.getLogger(__name__)


class FolderCorpus(IndexedCorpus):
    """Corpus of the audio files below `path`, at any depth.

    A manifest (CSV or JSON lines; default: `manifest.csv` in the folder; "none": no manifest) limits it to the files
    listed. Columns: `file` (inside the folder) and, where known, `speaker`, `text`, `split` (train, val or test) and
    `phones` ("symbol@seconds ...").
    If no row is marked val or test, the share `holdout` is test and as much val, by speaker if known, else by file;
    otherwise unmarked rows are for training. With `holdout=1` every file is a clip, whatever the manifest says. Raises
    CorpusError if the folder does not exist or has no readable audio.

    Where no row has a speaker, `speaker_from` takes folder names: 1 is the first folder below `path`, 2 the next, -1
    the one that holds the file; "auto" finds the level in trees like LibriSpeech's and VCTK's; None: none.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int,
        manifest: str | Path | None = None,
        holdout: float = 0.05,
        seed: int = 0,
        speaker_from: int | str | None = None,
    ):
        self.root = Path(given(path)).expanduser()
        if not self.root.is_dir():
            raise CorpusError(f"{self.root} is not a folder: give a folder of audio files as dataset.path.")
        read_all = str(manifest).lower() in ("none", "false") and manifest is not None
        if manifest is None and (self.root / "manifest.csv").is_file():
            manifest = self.root / "manifest.csv"
        rows = self._scan() if manifest is None or read_all else self._listed(Path(manifest).expanduser())
        found, self.bad = _headers(self.root, [row.file for row in rows])
        self.size = len(rows)
        if not found:
            first = " ".join(self.bad[0])
            raise CorpusError(f"none of the {self.size} audio files in {self.root} can be read ({first}).")
        self.rows = self._with_speakers([row for row in rows if row.file in found], speaker_from)
        if self.bad:
            first = ", ".join(" ".join(one) for one in self.bad[:3])
            log.warning(
                shortened(f"{len(self.bad):,} of {self.size:,} audio files in {self.root} are left out: {first}")
            )
        lengths = np.array([audio.length(*found[row.file], sample_rate) for row in self.rows], np.int64)
        self.upsampled = sum(rate < sample_rate for _, rate in found.values())
        marks = np.array([SPLITS.get(row.split.lower(), "train") for row in self.rows])
        names, speakers = [row.file for row in self.rows], [row.speaker for row in self.rows]
        splits = split(names, speakers, holdout, seed, marks if (marks != "train").any() else None)
        super().__init__(sample_rate, lengths, splits, speakers)

    def recording(self, i: int) -> Recording:
        row = self.rows[i]
        return Recording(self.root / row.file, row.file, row.speaker, row.text, row.phones)

    def identity(self) -> Iterator[str]:
        """All rows of the manifest; audio contributes only its lengths."""
        return map(repr, self.rows)

    def _with_speakers(self, rows: list[Row], level: int | str | None) -> list[Row]:
        """The rows with the names of folders as speakers, if these are not known."""
        paths = [row.file.split("/") for row in rows]
        if level is None or any(row.speaker for row in rows) or not (level := speaker_level(paths, level)):
            return rows
        at = level - 1  # the last part of a path is the file's name
        speakers = [path[at] if -len(path) <= at < len(path) - 1 else "" for path in paths]
        if not any(speakers):
            raise CorpusError(
                f"dataset.speaker_from={level}, but no folder in {self.root} is at that level: give another"
            )
        self.speakers_from = f"folder level {level}, such as {max(speakers)}"
        log.info("speakers of %s are named by %s (dataset.speaker_from)", self.root, self.speakers_from)
        return [row._replace(speaker=speaker) for row, speaker in zip(rows, speakers, strict=True)]

    def _scan(self) -> list[Row]:
        names, others = find_audio(self.root)
        passed = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(8)) or "no other file"
        if not names:
            raise CorpusError(f"{self.root} holds no audio at any depth ({passed}): check dataset.path.")
        log.info("%s: %s audio files; passed over: %s", self.root, f"{len(names):,}", passed)
        return [Row(name) for name in names]

    def _listed(self, manifest: Path) -> list[Row]:
        rows, columns = read_manifest(manifest)
        if "file" not in columns:
            raise CorpusError(
                f"{manifest} needs a column `file` (or path, audio_filepath, ...); it has "
                f"{', '.join(columns)[:200] or 'none'}: rename one, or read all files with dataset.manifest=none"
            )
        if not rows:
            raise CorpusError(f"{manifest} lists no files.")
        for number, row in enumerate(rows):
            name = self._inside(row.file)
            if os.path.isabs(name) or name.split(os.sep)[0] in ("..", ".") or "\0" in name:
                raise CorpusError(
                    f"{manifest} lists {row.file!r}, which is not a file inside {self.root}: give a folder that holds "
                    "all of them as dataset.path, or read all files there with dataset.manifest=none"
                )
            if (row.split.lower() or "train") not in SPLITS:
                raise CorpusError(f"{manifest} has the split {row.split!r}; valid: {', '.join(SPLITS)}.")
            if not phones_are_timed(row.phones):
                form = "'symbol@seconds symbol@seconds ...' in the order of their times"
                raise CorpusError(f"{manifest} has phones of {name} that are not {form}.")
            if (file := Path(name).as_posix()) != row.file:
                rows[number] = row._replace(file=file)
        return rows

    def _inside(self, file: str) -> str:
        """A path in a manifest, relative to the folder if it is inside; Windows' separators become this system's."""
        name = os.path.normpath(file.replace("\\", os.sep) if "/" not in file else file or ".")
        for root in (os.path.abspath(self.root), os.path.realpath(self.root)):
            if name.startswith(root + os.sep):
                return name[len(root) + 1 :]
        return name


def speaker_level(paths: Sequence[Sequence[str]], level: int | str) -> int | None:
    """`level`, or for "auto" the first folder level, from 1, at which nearly all paths (folder, ..., file) have names
    that look like speakers', or that begin the files' names (p225/p225_001.wav); None without two of them."""
    if level != "auto":
        if not isinstance(level, int) or not level:
            raise CorpusError(
                f"dataset.speaker_from={level}: give a folder level (1, 2, ... or -1, -2, ...), auto or null."
            )
        return level
    for at in range(max(map(len, paths)) - 1):
        names = [path[at] for path in paths if len(path) > at + 1 and _names_speaker(path[at], path[-1])]
        if len(names) >= (1 - MOST_ODD) * len(paths) and len({*names}) > 1:
            return at + 1
    return None


def _names_speaker(folder: str, file: str) -> bool:
    return bool(SPEAKER.fullmatch(folder)) or file.startswith((f"{folder}_", f"{folder}-"))


def _headers(root: Path, names: Sequence[str]) -> tuple[dict[str, tuple[int, int]], list[tuple[str, str]]]:
    """{name: (frames, rate)} of readable files, [(name, reason)] of others, cached by size and modification time."""
    cached = cache_dir() / "folders" / f"{cache_key(root.resolve(), audio.LENGTHS)}.json"
    known = load_json(cached)

    def entry(name: str) -> list:
        try:
            stat = os.stat(root / name)
        except OSError:
            return [0, 0, 0, 0, "is missing"]
        if not S_ISREG(stat.st_mode):  # opening a pipe would block
            return [0, 0, 0, 0, "is no regular file"]
        state = [stat.st_size, stat.st_mtime_ns]
        if known.get(name, [])[:2] == state and not known[name][4]:  # an installation may mend what was unreadable
            return known[name]
        try:
            return [*state, *audio.probe(root / name, name), ""]
        except AudioError as error:
            return [*state, 0, 0, error.reason]

    with ThreadPoolExecutor(8) as pool:  # opening files is bound by the disk or the network
        index = dict(zip(names, pool.map(entry, names), strict=True))
    if any(known.get(name) != entry for name, entry in index.items()):
        save_json(cached, known | index)
    found = {name: (frames, rate) for name, (_, _, frames, rate, problem) in index.items() if not problem}
    return found, [(name, entry[4]) for name, entry in index.items() if entry[4]]
