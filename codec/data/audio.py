"""Reading of audio files, cropped and resampled with soxr; writing in blocks."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from codec.data.containers import AudioFile, ContainerError
from codec.utils.atomic import atomic_file
from codec.utils.errors import UserError, shortened

# Samples, at the lower of the two rates, read on either side of a crop and discarded after resampling. The filter is
# shorter, so that a crop equals that part of the whole resampled file.
CONTEXT = 256
LOUDEST = 16.0  # a float file with larger samples is in another unit
RATES = (100, 1_000_000)  # Hz, lowest and highest of a file
CLAIMED = 100 * 3600  # seconds in a header; more means damage
BLOCK = 2**22  # values decoded at a time
WRITTEN = 2**16  # samples written at a time: libsndfile crashes on 1e6 and more of Vorbis
ENDINGS = {"OPUS": ("OGG", "OPUS"), "OGA": ("OGG", "VORBIS"), "AIF": ("AIFF", "PCM_16"), "WAVE": ("WAV", "PCM_16")}
LENGTHS = 2  # version of how lengths are found, for caches of them
LONGEST = 2**28  # samples read in one piece: 1.5 hours at 48 kHz, 1 GB


class AudioError(UserError):
    """Raised for an audio file that cannot be read: its name, `file`, and the `reason`."""

    def __init__(self, file: str, reason: str):
        super().__init__(file, reason)  # both, so that the error can be pickled
        self.file, self.reason = file, reason

    def __str__(self) -> str:
        return shortened(f"{self.file}: {self.reason}")


def probe(source: str | Path | bytes, name: str | None = None) -> tuple[int, int]:
    """(frames, sample rate in Hz) from the header of a file, given as a path or as bytes. Raises AudioError."""
    with opened(source, _name(source, name)) as file:
        return file.frames, file.samplerate


def read(
    source: str | Path | bytes, sample_rate: int, start: int = 0, samples: int | None = None, name: str | None = None
) -> np.ndarray:
    """Read a file (path or bytes) as mono float32 [T] in [-1, 1] at `sample_rate`, resampled with soxr. `start` and
    `samples` count at `sample_rate`; only that part is decoded, and T is below `samples` if the recording ends early.
    Raises AudioError for damaged, empty or non-finite audio."""
    name = _name(source, name)
    with opened(source, name) as file:
        rate = file.samplerate
        common = math.gcd(rate, sample_rate)
        ours, theirs = sample_rate // common, rate // common  # samples of equal duration at the two rates
        context = 0 if rate == sample_rate else math.ceil(CONTEXT * max(1.0, sample_rate / rate))
        # Begin on a sample that both rates have, so that the resampler's phase is that of the whole file.
        block = max(0, start - context) // ours
        first, last = block * theirs, file.frames
        if samples is not None:
            last = min(last, -(-(start + samples + context) * theirs // ours))
        if first >= last:
            raise AudioError(name, "ends before the requested part")
        pieces, count = [], 0
        for piece in blocks(file, first, last, name):
            pieces.append(piece)
            count += len(piece)
            if count > LONGEST:
                raise AudioError(name, f"has more than {LONGEST:,} samples in one piece")
    wav = np.concatenate(pieces)
    if (peak := float(np.abs(wav).max())) > LOUDEST:
        raise AudioError(name, f"has samples up to {peak:g} where full scale is 1")
    if rate != sample_rate:
        wav = soxr.resample(wav, rate, sample_rate)
    skip = start - block * ours
    wav = wav[skip:] if samples is None else wav[skip : skip + samples]
    if not len(wav):
        raise AudioError(name, "ends before the requested part")
    return np.clip(wav, -1.0, 1.0)


def blocks(file: AudioFile, first: int, last: int, name: str, most: int = BLOCK) -> Iterator[np.ndarray]:
    """Decode frames `first` to `last` of an open file as mono float32 [T] pieces of at most `most` decoded values.
    Memory and time are bounded by the audio present, whatever the header claims. Raises AudioError if it cannot be
    decoded, ends early, or is not finite."""
    at, most = first, max(1, most // file.channels)
    try:
        if first:
            file.seek(first)
        while at < last and len(block := file.read(min(most, last - at))):
            at += len(block)
            block = block.mean(axis=1)
            if not math.isfinite(float(np.abs(block).max())):  # NaN if any sample is
                raise AudioError(name, "has NaN or infinite samples")
            yield block
    except (soundfile.LibsndfileError, ContainerError) as error:
        raise AudioError(name, _reason(error)) from None
    # Headers of compressed files may be a little off; if a tenth of a second is missing, the file is truncated.
    if at == first or at < last - 0.1 * file.samplerate:
        raise AudioError(name, f"is truncated: {at} of {last} frames are there")


def format_of(path: str | Path) -> tuple[str, str]:
    """(format, subtype) in libsndfile's names of the ending of a path. Raises AudioError if it cannot be written."""
    ending = Path(path).suffix[1:].upper()
    known = ending in soundfile.available_formats() and ending != "SD2"  # which has a second file
    default = soundfile.default_subtype(ending) if known else ""
    kind, subtype = ENDINGS.get(ending, (ending, default))
    if not subtype:
        raise AudioError(str(path), "cannot be written: its ending names no audio format (wav, flac, ogg, opus, ...)")
    return kind, subtype


def write(path: str | Path, wav: Iterable[np.ndarray], sample_rate: int) -> None:
    """Write blocks of samples [T] as a mono file in the format of its ending; the file appears when it is complete.
    Raises AudioError if the format cannot hold them, or the file cannot be written."""
    (kind, subtype), count = format_of(path), 0
    try:
        with atomic_file(path) as file:
            with soundfile.SoundFile(file, "w", sample_rate, 1, subtype, format=kind) as sound:
                for block in wav:
                    for at in range(0, len(block), WRITTEN):
                        sound.write(block[at : at + WRITTEN])
                    count += len(block)
            file.flush()
            frames, rate = probe(file.name, str(path))
            if rate != sample_rate or abs(frames - count) > 0.1 * rate:
                raise AudioError(str(path), f"has {frames:,} of {count:,} samples, at {rate:,} Hz")
    except OSError as error:
        raise AudioError(str(path), f"cannot be written ({error.strerror or error})") from error
    except (soundfile.SoundFileError, ValueError, AudioError) as error:
        cause = error.reason if isinstance(error, AudioError) else error
        advice = f"this format may not hold {sample_rate:,} Hz or this length: choose wav, flac or ogg"
        raise AudioError(str(path), f"cannot be written ({cause}); {advice}") from error


def length(frames: int, rate: int, sample_rate: int) -> int:
    """Number of samples of `frames` at `rate` when resampled to `sample_rate`, at least 1."""
    return max(1, frames * sample_rate // rate)


def opened(source: str | Path | bytes, name: str, claimed: float = CLAIMED) -> AudioFile:
    """Open an audio file. Raises AudioError if it is invalid, empty, beyond RATES, or longer than `claimed` seconds."""
    if not isinstance(source, bytes) and not os.path.isfile(source):  # opening a pipe would block
        raise AudioError(name, "is no regular file" if os.path.exists(source) else "is missing")
    try:
        file = AudioFile(source)
    except (soundfile.LibsndfileError, ContainerError, OSError, TypeError, UnicodeError) as error:  # of the name
        raise AudioError(name, _reason(error)) from None
    problem = ""
    if file.frames <= 0:
        problem = "has no samples"
    elif not RATES[0] <= file.samplerate <= RATES[1]:
        problem = f"claims a sample rate of {file.samplerate:,} Hz"
    elif file.frames / file.samplerate > claimed:
        problem = f"claims to be {file.frames / file.samplerate / 3600:,.0f} hours long"
    if problem:
        file.close()
        raise AudioError(name, problem)
    return file


def _name(source: str | Path | bytes, name: str | None) -> str:
    return name or ("audio in memory" if isinstance(source, bytes) else str(source))


def _reason(error: Exception) -> str:
    if isinstance(error, ContainerError):
        return str(error)
    text = getattr(error, "error_string", str(error)).removeprefix("Error : ").strip(". ")
    return f"cannot be decoded ({text})"
