"""Synthetic speech by eSpeak NG: a corpus generated on first use, and pronunciations, both with known phone times. For
tests, demonstrations and studies of phones; codecs for use are trained on recordings."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.utils.cache import cache_dir, cache_key

MOST = 100_000  # utterances: a hundred hours
FORMAT = 1  # increase when espeak_worker.py or espeak_corpus.yaml changes the corpus


class EspeakCorpus(FolderCorpus):
    """Synthetic corpus of `voices` x `utterances` sentences in ten languages, or in `languages` ("en", "de", ...).

    Each voice is a speaker; whole voices are held out. Equal arguments give equal samples. 48 x 12 utterances are about
    45 minutes at 22,050 Hz, generated in some 10 s below `cache` (default: the user's). Raises CorpusError.
    """

    def __init__(
        self,
        sample_rate: int,
        voices: int = 48,
        utterances: int = 12,
        holdout: float = 0.1,
        seed: int = 0,
        cache: str | Path | None = None,
        languages: Sequence[str] | None = None,
    ):
        folder = generate(voices, utterances, seed, Path(cache) if cache else cache_dir() / "espeak", languages)
        super().__init__(folder, sample_rate, holdout=holdout, seed=seed)


def generate(voices: int, utterances: int, seed: int, cache: Path, languages: Sequence[str] | None = None) -> Path:
    """Folder of the corpus, generated if it does not exist; concurrent calls are safe."""
    if not 0 < voices * utterances <= MOST:
        raise CorpusError(f"the espeak corpus has 1 to {MOST:,} utterances, not {voices} voices x {utterances}.")
    library = _library_version("the espeak corpus")
    folder = cache / cache_key(FORMAT, library, voices, utterances, seed, *([sorted(languages)] if languages else []))
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache, prefix="unfinished-"))
    except OSError as error:
        raise CorpusError(f"cannot write the espeak corpus to {cache} ({error.strerror}): set CODEC_CACHE.") from None
    try:
        task = {"folder": str(work), "voices": voices, "utterances": utterances, "seed": seed}
        _run(json.dumps(task | ({"languages": list(languages)} if languages else {})))
        try:
            os.rename(work, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has generated the same
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


class Pronunciation(NamedTuple):
    """Phones and words of a text with their times."""

    phones: list[tuple[str, float]]
    """(IPA, start in seconds); "_" is a pause."""
    words: list[tuple[int, float]]
    """(index of its first character in the text, start in seconds) of each word, or of words run together."""
    seconds: float


def pronounce(text: str, voice: str = "en-us") -> Pronunciation:
    """Pronunciation of a text by eSpeak NG, deterministic. Raises CorpusError for an unknown voice or a silent text."""
    _library_version("the pronunciation of a text")
    found = json.loads(_run("pronounce", json.dumps({"text": text, "voice": voice})))
    phones = [(symbol, start) for symbol, start in found["phones"]]
    return Pronunciation(phones, [tuple(word) for word in found["words"]], found["seconds"])


def _library_version(purpose: str) -> str:
    try:
        return version("espeakng-loader")
    except PackageNotFoundError:
        raise CorpusError(f"{purpose} needs eSpeak NG: pip install espeakng-loader.") from None


def _run(task: str, content: str = "") -> str:
    """Output of espeak_worker.py in a fresh process, because eSpeak's state affects the next utterance."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "codec.data.espeak_worker", task]
    done = subprocess.run(command, env=environment, input=content, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or "it crashed").splitlines()[-1].removeprefix("RuntimeError: ")
        raise CorpusError(f"eSpeak NG failed: {reason}")
    return done.stdout
