"""Sound inside a page: FLAC where there is room, else Ogg Opus, in bytes that are the same every time."""

import base64
import functools
import io
import zlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
import torch

from codec.evaluation.baselines.opus import RATES, encode
from codec.evaluation.html.base import Entry
from codec.evaluation.report import ReportError
from codec.utils.safe_io import UntrustedFileError, inside

LONGEST = 2**26  # samples of a sound of a report: 23 minutes at 48 kHz
MARKUP = 1_500  # characters around a sound in a page, about
REFLECTED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Coding:
    """How sound is kept in a page. kbps: of Ogg Opus, or None for FLAC."""

    name: str
    kbps: int | None

    def encode(self, wav: np.ndarray, rate: int) -> bytes:
        """wav ``[T]`` int16 at ``rate`` Hz -> a file's bytes."""
        return flac(wav, rate) if self.kbps is None else opus(wav, rate, self.kbps)


CODINGS = (
    Coding("FLAC, which loses nothing", None),
    Coding("Ogg Opus at 96 kbit/s, which is not quite what the systems gave", 96),
    Coding("Ogg Opus at 64 kbit/s, which is not quite what the systems gave", 64),
)
Wave = tuple[np.ndarray, int]  # int16 [T], Hz


def read(entry: Entry, clip: str, role: str) -> Wave:
    """The sound of a clip, ``reference`` or ``decoded`` -> int16 ``[T]`` and its rate; 16-bit files come as they are.

    Raises ReportError if the file is not there, leads out of the folder, symbolic links included, or is no mono sound:
    whatever is read ends up in a page that is passed around.
    """
    path = entry.folder / entry.report.audio[clip][role]
    try:
        if not inside(entry.folder, entry.report.audio[clip][role]).is_file():
            raise ReportError(f"the report of {entry.name} names a sound file that is not there: {path}")
        with soundfile.SoundFile(path) as file:
            if file.channels != 1 or not 0 < file.frames <= LONGEST:  # a small file can claim, or unpack to, gigabytes
                raise ReportError(f"{path}, a sound file of {entry.name}, is not one channel of sound of some minutes")
            wav = file.read(dtype="float32")
            if not np.isfinite(wav).all():
                raise ReportError(f"{path}, a sound file of {entry.name}, has NaN or infinite samples")
            return int16(wav), file.samplerate
    except UntrustedFileError as error:
        raise ReportError(f"the report of {entry.name} names a sound file outside of its folder: {error}") from error
    except (OSError, RuntimeError, TypeError) as error:  # libsndfile's own; a file without a header
        raise ReportError(f"{path}, a sound file of {entry.name}, cannot be read: {error}") from error


def int16(wav: np.ndarray) -> np.ndarray:
    """wav ``[T]`` in [-1, 1] -> the same in 16 bits, clipped."""
    return np.clip(np.rint(np.asarray(wav, dtype=np.float64) * 32768), -32768, 32767).astype(np.int16)


def flac(wav: np.ndarray, rate: int) -> bytes:
    """wav ``[T]`` int16 -> a FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, wav, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def opus(wav: np.ndarray, rate: int, kbps: int) -> bytes:
    """wav ``[T]`` int16 -> an Ogg Opus file of about ``kbps`` kbit/s, resampled where Opus does not know ``rate``."""
    if rate not in RATES:
        there = min((known for known in RATES if known > rate), default=RATES[-1])
        wav, rate = soxr.resample(wav, rate, there, quality="HQ"), there
    return _with_serial_zero(encode(torch.from_numpy(wav / 32768)[None, None], rate, kbps))


def data_uri(kind: str, content: bytes) -> str:
    """A file's bytes as an address: ``data:KIND;base64,...``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sound_uri(coding: Coding, wave: Wave) -> str:
    """A wave as an address that a browser can play."""
    return data_uri("audio/flac" if coding.kbps is None else "audio/ogg", coding.encode(*wave))


@dataclass
class Clip:
    """What a page lets hear of one clip.

    waves: the reference, then each system.
    pictures: addresses of their spectrograms.
    """

    name: str
    waves: list[Wave]
    pictures: list[str]


def fill(room: int, names: Sequence[str], load: Callable[[str], Clip]) -> tuple[Coding, list[tuple[Clip, list[str]]]]:
    """As much sound as goes into ``room`` characters: all clips in the best coding that holds them, else the first few.

    Returns:
        the coding, and each clip that found room with the addresses of its sounds.
    """
    seen: dict[str, Clip] = {}
    for coding in CODINGS:
        if coding is not CODINGS[-1] and seen and _expected(coding, seen.values()) * len(names) > 1.15 * room:
            continue  # Opus takes a while, and its size is known beforehand
        kept, used = [], 0
        with ThreadPoolExecutor() as pool:  # libsndfile works without Python's lock
            for name in names:
                clip = seen[name] = seen.get(name) or load(name)
                sounds = list(pool.map(functools.partial(sound_uri, coding), clip.waves))
                used += sum(len(text) + MARKUP for text in sounds) + sum(map(len, clip.pictures))
                if used > room:
                    break
                kept.append((clip, sounds))
        if len(kept) == len(names):
            break
    return coding, kept


def _expected(coding: Coding, clips: Collection[Clip]) -> float:
    """Characters that a clip like these takes, at the bitrate that the coder is asked for."""
    seconds = sum(len(wav) / rate for clip in clips for wav, rate in clip.waves)
    pictures = sum(len(picture) for clip in clips for picture in clip.pictures)
    return (seconds * coding.kbps * 1000 / 8 * 4 / 3 + pictures) / len(clips)


def _with_serial_zero(file: bytes) -> bytes:
    """An Ogg file with the serial number 0 in place of a random one, and the checksums of that (RFC 3533, section 6).

    Ogg's CRC begins with 0 and takes the highest bit first; zlib's is the same polynomial from the other end.
    """
    out, at = bytearray(file), 0
    while at < len(out):
        table = out[at + 27 : at + 27 + out[at + 26]]
        end = at + 27 + len(table) + sum(table)
        out[at + 14 : at + 18] = out[at + 22 : at + 26] = bytes(4)
        crc = zlib.crc32(bytes(out[at:end]).translate(REFLECTED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        out[at + 22 : at + 26] = int(f"{crc:032b}"[::-1], 2).to_bytes(4, "little")
        at = end
    return bytes(out)
