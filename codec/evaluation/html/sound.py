"""Audio embedded in a page: FLAC if it fits, else Ogg Opus."""

import base64
import functools
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soundfile
import torch

from codec.evaluation.baselines.base import resample
from codec.evaluation.baselines.opus import RATES, encode
from codec.evaluation.html.base import SystemResult
from codec.evaluation.report import ReportError
from codec.utils.safe_io import UntrustedFileError, inside

LONGEST = 2**26  # samples of an audio file of a report: 23 minutes at 48 kHz
MARKUP = 1_500  # characters of HTML around an audio file, about
OPUS_KBPS = 64  # transparent for speech
FLAC, OPUS = "FLAC, which is lossless", f"Ogg Opus at {OPUS_KBPS} kbit/s, which is not exactly the systems' output"
Wave = tuple[np.ndarray, int]  # int16 [T], Hz


@dataclass
class Clip:
    """The reference and each system's output of one clip, with the data URIs of their spectrograms."""

    name: str
    waves: list[Wave]
    pictures: list[str]


def read_audio(result: SystemResult, clip: str, role: str) -> Wave:
    """The ``reference`` or ``decoded`` audio of a clip, int16 ``[T]``, and its rate in Hz; 16-bit files are unchanged.

    Raises ReportError if it is missing, not mono, or (links resolved) outside of the report's folder, as pages are
    shared.
    """
    name = result.report.audio[clip][role]
    path = result.folder / name
    try:
        if not inside(result.folder, name).is_file():
            raise ReportError(f"the report of {result.name} names an audio file that does not exist: {path}")
        with soundfile.SoundFile(path) as file:
            if file.channels != 1 or not 0 < file.frames <= LONGEST:  # a small file can claim, or unpack to, gigabytes
                raise ReportError(f"{path}, audio of {result.name}, is not one channel of at most {LONGEST} samples")
            wav = file.read(dtype="float32")
            if not np.isfinite(wav).all():
                raise ReportError(f"{path}, audio of {result.name}, has NaN or infinite samples")
            return int16(wav), file.samplerate
    except UntrustedFileError as error:
        raise ReportError(f"the report of {result.name} names audio outside of its folder: {error}") from error
    except (OSError, RuntimeError, TypeError) as error:  # of libsndfile; TypeError: a file without a header
        raise ReportError(f"{path}, audio of {result.name}, cannot be read: {error}") from error


def int16(wav: np.ndarray) -> np.ndarray:
    """wav ``[T]`` in [-1, 1] -> 16-bit integers, clipped."""
    return np.clip(np.rint(np.asarray(wav, dtype=np.float64) * 32768), -32768, 32767).astype(np.int16)


def data_uri(mime: str, content: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def audio_uri(wave: Wave, coding: str) -> str:
    """A wave as a data URI, in `FLAC`, or in `OPUS` at the next rate that Opus supports."""
    wav, rate = wave
    if coding == FLAC:
        file = io.BytesIO()
        soundfile.write(file, wav, rate, format="FLAC", subtype="PCM_16")
        return data_uri("audio/flac", file.getvalue())
    samples = torch.from_numpy(wav / 32768)[None, None]
    if rate not in RATES:
        higher = min((known for known in RATES if known > rate), default=RATES[-1])
        samples, rate = resample(samples, rate, higher), higher
    return data_uri("audio/ogg", encode(samples, rate, OPUS_KBPS))


def fill(room: int, names: Sequence[str], load: Callable[[str], Clip]) -> tuple[str, list[tuple[Clip, list[str]]]]:
    """Clips with the URIs of their audio, up to ``room`` characters: all as FLAC, else all or the first as Opus."""
    load = functools.cache(load)
    for coding in (FLAC, OPUS):
        fitting, used = [], 0
        with ThreadPoolExecutor() as pool:  # libsndfile releases the GIL
            for clip in map(load, names):
                uris = list(pool.map(functools.partial(audio_uri, coding=coding), clip.waves))
                used += sum(len(uri) + MARKUP for uri in uris) + sum(map(len, clip.pictures))
                if used > room:
                    break
                fitting.append((clip, uris))
        if len(fitting) == len(names):
            break
    return coding, fitting
