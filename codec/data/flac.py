"""Lossless conversion of recordings to mono FLAC."""

import io
from pathlib import Path

import soundfile

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import Recording

SIXTEEN = {"PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW"}  # at most 16 bits
SIXTEEN |= {"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}  # lossy below them


def to_flac(recording: Recording, sample_rate: int | None = None) -> tuple[bytes, int, int]:
    """Convert a recording to mono FLAC at `sample_rate` or its own rate, channels averaged: (file, frames, rate in Hz).
    Mono FLAC at that rate is copied; others get 16 bits if the source has no more, else 24. The whole recording is
    decoded to detect damage, for which AudioError is raised."""
    source, name = recording.source, recording.name
    with audio.opened(source, name) as file:
        kind, subtype, channels = file.format, file.subtype, file.channels
        frames, rate = file.frames, file.samplerate
    target = sample_rate or rate
    wav = recording.read(target)
    if (kind, channels, rate, len(wav)) == ("FLAC", 1, target, frames):
        try:
            return source if isinstance(source, bytes) else Path(source).read_bytes(), frames, rate
        except OSError as error:
            raise AudioError(name, f"cannot be opened ({error.strerror})") from None
    data = io.BytesIO()
    try:
        soundfile.write(data, wav, target, format="FLAC", subtype="PCM_16" if subtype in SIXTEEN else "PCM_24")
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioError(name, f"cannot be written as FLAC at {target} Hz ({error})") from None
    return data.getvalue(), len(wav), target
