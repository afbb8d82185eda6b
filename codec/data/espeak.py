"""The corpus that is always there: speech by eSpeak NG, made on first use.

For tests, demonstrations and phone-level questions: its phones and their times are known. A codec for real
use is trained on recordings.
"""

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
FORMAT = 1  # raise it when synth.py or sentences.py changes what is made


class EspeakCorpus(FolderCorpus):
    """`voices` x `utterances` sentences in ten languages, or in those of `languages` ("en", "de" ...), each voice a
    speaker; whole voices are held out.

    The same arguments give the same samples. 48 x 12 utterances are about 45 minutes at 22,050 Hz, made in
    some ten seconds. Files lie below `cache` (default: the user's cache folder). Raises CorpusError if they
    cannot be made.
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
        folder = made(voices, utterances, seed, Path(cache) if cache else cache_dir() / "espeak", languages)
        super().__init__(folder, sample_rate, holdout=holdout, seed=seed)


def made(voices: int, utterances: int, seed: int, cache: Path, languages: Sequence[str] | None = None) -> Path:
    """The folder with this corpus, made if it is not there. Several processes may ask at once."""
    if not 0 < voices * utterances <= MOST:
        raise CorpusError(f"the espeak corpus has 1 to {MOST:,} utterances, not {voices} voices x {utterances}.")
    library = _library("the espeak corpus")
    spoken = [sorted(languages)] if languages is not None else []
    folder = cache / cache_key(FORMAT, library, voices, utterances, seed, *spoken)
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache, prefix="unfinished-"))
    except OSError as error:
        raise CorpusError(f"cannot write the espeak corpus to {cache} ({error.strerror}): set CODEC_CACHE.") from None
    try:
        task = {"folder": str(work), "voices": voices, "utterances": utterances, "seed": seed}
        _run(json.dumps(task | ({"languages": list(languages)} if languages is not None else {})))
        try:
            os.rename(work, folder)  # appears whole or not at all
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


class Said(NamedTuple):
    """How a text sounds when eSpeak NG says it."""

    phones: list[tuple[str, float]]
    """(IPA, start in seconds); "_" is a pause."""
    words: list[tuple[int, float]]
    """The letter of the text at which a word begins, and its start in seconds. Words said as one count as one."""
    seconds: float


def said(text: str, voice: str = "en-us") -> Said:
    """The same for the same arguments. Raises CorpusError if there is no such voice, or nothing to say in the text."""
    _library("turning text into phones")
    told = json.loads(_run("say", json.dumps({"text": text, "voice": voice})))
    return Said([(symbol, start) for symbol, start in told["phones"]], list(map(tuple, told["words"])), told["seconds"])


def _library(purpose: str) -> str:
    """Its version. Raises CorpusError if it is not installed."""
    try:
        return version("espeakng-loader")
    except PackageNotFoundError:
        raise CorpusError(f"{purpose} needs eSpeak NG: pip install espeakng-loader.") from None


def _run(task: str, content: str = "") -> str:
    """What codec/data/espeak_worker.py prints, in a process of its own: eSpeak keeps state that shapes what it says
    next, and starts from the same only there."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "codec.data.espeak_worker", task]
    done = subprocess.run(command, env=environment, input=content, capture_output=True, encoding="utf-8")
    if done.returncode:
        reason = (done.stderr.strip() or "it crashed").splitlines()[-1].removeprefix("RuntimeError: ")
        raise CorpusError(f"eSpeak NG failed: {reason}")
    return done.stdout
