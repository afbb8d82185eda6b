"""Recordings as FLAC: the bytes themselves where they are mono FLAC already, encoded without loss otherwise."""

import io
from pathlib import Path

import soundfile

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import Recording

COARSE = {"PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW"}  # 16 bits hold what they hold
LOSSY = {"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}  # and more than these mean


def to_flac(recording: Recording, sample_rate: int | None = None) -> tuple[bytes, int, int]:
    """(FLAC file, frames, rate in Hz) of a recording, channels averaged, at `sample_rate` or at its own.

    16 bits where the source has no more, 24 otherwise. The whole recording is decoded, so that a broken one is found
    now. Raises AudioError.
    """
    source, name = recording.source, recording.name
    frames, rate = audio.probe(source, name)
    wanted = sample_rate or rate
    wav = audio.read(source, wanted, 0, None, name)
    with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        kind, subtype, channels = file.format, file.subtype, file.channels
    if (kind, channels, rate, len(wav)) == ("FLAC", 1, wanted, frames):
        return source if isinstance(source, bytes) else _bytes(source, name), frames, rate
    depth = "PCM_16" if subtype in COARSE | LOSSY else "PCM_24"
    data = io.BytesIO()
    try:
        soundfile.write(data, wav, wanted, format="FLAC", subtype=depth)
    except (soundfile.LibsndfileError, ValueError) as error:
        raise AudioError(name, f"cannot be written as FLAC at {wanted} Hz ({error})") from None
    return data.getvalue(), len(wav), wanted


def _bytes(path: str | Path, name: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AudioError(name, f"cannot be opened ({error.strerror})") from None
