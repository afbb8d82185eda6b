"""An audio file with all of the audio in it. libsndfile believes headers, and reads the first of joined streams only:
here MP3 is read by its frames, chained Ogg link by link, a WAV header that a pipe left at 0 gets its length, and what
libsndfile cannot read is decoded by FFmpeg (PyAV)."""

import io
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from codec.data import mp3

BLOCK = 2**20  # frames discarded at a time
LONGEST = 2**28  # values decoded into memory
SLACK = 1024  # bytes that a header may claim too many
UNKNOWN = 0x7F000000  # programs that write to a pipe claim this many bytes or more, or 0
FOREIGN = rb"....ftyp|\x1aE\xdf\xa3|\xff[\xf1\xf9]|caff|0&\xb2u|fLaC|OggS|#!AMR"  # MP4, Matroska, AAC, ...
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,caf,asf,flac,ogg,amr"  # none of them opens other files


class ContainerError(ValueError):
    """Raised with a reason if a file cannot be read whole."""


class View(io.RawIOBase):
    """Read-only binary file of `head`, then bytes `start` to `end` of another file."""

    def __init__(self, file: BinaryIO, head: bytes, start: int, end: int):
        self.file, self.head, self.offset, self.at = file, head, start - len(head), 0
        self.length = len(head) + end - start

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.length}[whence])
        return self.at

    def readinto(self, buffer) -> int:
        wanted = min(len(buffer), max(0, self.length - self.at))
        data = self.head[self.at : self.at + wanted]
        if len(data) < wanted:
            self.file.seek(self.offset + self.at + len(data))
            data += self.file.read(wanted - len(data))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


class Stream(soundfile.SoundFile):
    """A file to read in order: soundfile would seek after each block, behind which libmpg123 lacks bits of frames."""

    @property
    def can_seek(self) -> bool:
        return super().seekable()

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True)
class Part:
    """A stream in a file, up to byte `end`: `frames` samples of each channel. `place(n)` is (the header in place of the
    file's, the offset of what follows it, how many samples to discard) to decode from sample n."""

    frames: int
    rate: int
    channels: int
    end: int
    place: Callable[[int], tuple[bytes, int, int]]


class AudioFile:
    """An open audio file (a path or bytes), its parts joined. Raises what soundfile does, OSError, and ContainerError,
    with a reason, if it is truncated, joins recordings of different rates, or needs PyAV, which is not there."""

    def __init__(self, source: str | Path | bytes):
        self.source, self._stream = source, None
        self._file = io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")  # noqa: SIM115
        try:
            magic = self._file.read(12)
            self._noisy = magic[:3] == b"ID3" or magic[:1] == b"\xff"
            self.parts = _parts(source, self._file, magic, self._noisy)
            if len({(part.rate, part.channels) for part in self.parts}) > 1:
                raise ContainerError("joins recordings of different rates or numbers of channels")
            self._start(0, 0)
        except BaseException:
            self._file.close()
            raise
        self.samplerate, self.channels = self._stream.samplerate, self._stream.channels
        self.frames = sum(part.frames for part in self.parts) if self.parts else self._stream.frames
        self.format, self.subtype = "" if self.parts else self._stream.format, self._stream.subtype

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._file.close()

    def seek(self, at: int) -> None:
        """Continue with sample `at`, 0 <= at < frames, of each channel."""
        number = 0
        while number + 1 < len(self.parts) and at >= self.parts[number].frames:
            at, number = at - self.parts[number].frames, number + 1
        self._start(number, at)

    def read(self, most: int) -> np.ndarray:
        """Up to `most` samples of each channel, float32 [n, C]; n is 0 at the end only."""
        if not self._left and self._number + 1 < len(self.parts):
            self._start(self._number + 1, 0)
        with mp3.quiet(self._noisy):
            block = self._stream.read(min(most, self._left), dtype="float32", always_2d=True)
        self._left = self._left - len(block) if len(block) else 0
        return block

    def _start(self, number: int, at: int) -> None:
        """Decode from sample `at` of a part, in order where libsndfile cannot seek."""
        self._number, skip, stream = number, at, self._stream
        with mp3.quiet(self._noisy):
            if self.parts:
                part = self.parts[number]
                head, start, skip = part.place(at)
                stream = Stream(View(self._file, head, start, part.end))
            elif not stream or not stream.can_seek:
                stream = self._whole()
            if stream.can_seek and (skip or stream is self._stream):
                back = min(skip, mp3.PREROLL) if stream.format == "MP3" else 0
                stream.seek(skip - back)
                skip = back
            while skip > 0 and (discarded := len(stream.read(min(skip, BLOCK)))):
                skip -= discarded
        self._left = (self.parts[number].frames if self.parts else stream.frames) - at
        self._stream = stream

    def _whole(self) -> Stream:
        """The file as libsndfile reads it, or else FFmpeg."""
        self._file.seek(0)
        foreign = re.match(FOREIGN, self._file.read(12), re.DOTALL)
        try:
            self._file.seek(0)
            stream = Stream(self._file if isinstance(self.source, bytes) else self.source)
            if not foreign or stream.frames < 2**62:  # which libsndfile says of FLAC that was written to a pipe
                return stream
        except soundfile.LibsndfileError:
            if not foreign:
                raise
        self._file.seek(0)
        return Stream(_decoded(self._file))


def _decoded(file: BinaryIO) -> io.BytesIO:
    """The first audio stream of a file, decoded by FFmpeg, as a WAV file."""
    try:
        import av
    except ImportError:
        raise ContainerError(
            "needs PyAV to be decoded: pip install -r requirements-media.txt, or convert it to FLAC"
        ) from None
    blocks, rate, count = [], 0, 0
    try:
        with av.open(file, options={"format_whitelist": DEMUXERS}) as container:
            resampler = av.AudioResampler("flt")  # interleaved float32, at the rate and layout of the first frame
            for frame in container.decode(audio=0):
                rate = rate or frame.sample_rate
                for block in resampler.resample(frame):
                    blocks.append(block.to_ndarray().reshape(-1, block.layout.nb_channels))
                    count += blocks[-1].size
                if count > LONGEST:
                    raise ContainerError("is too long to be decoded in one piece: convert it (ffmpeg -i FILE NEW.flac)")
    except (av.FFmpegError, IndexError) as error:
        raise ContainerError(f"cannot be decoded ({getattr(error, 'strerror', 'it has no audio')})") from None
    wav = io.BytesIO()
    soundfile.write(wav, np.concatenate(blocks or [np.zeros((0, 1), np.float32)]), rate or 1, "FLOAT", format="WAV")
    wav.seek(0)
    return wav


def _parts(source: str | Path | bytes, file: BinaryIO, magic: bytes, noisy: bool) -> list[Part]:
    """The parts of a file that libsndfile does not read whole; [] of others."""
    end = file.seek(0, os.SEEK_END)
    if (kind := magic[:4] + magic[8:]) in (b"RIFFWAVE", b"RF64WAVE", b"FORMAIFF", b"FORMAIFC"):
        return _chunks(file, end, kind)
    if kind.startswith(b".snd") and not 0 < int.from_bytes(magic[8:]) < UNKNOWN:
        return [_link(file, magic[:8] + b"\xff" * 4, 12, end)]
    if not noisy and magic[:4] != b"OggS":
        return []
    find = _mp3 if noisy else _ogg
    if isinstance(source, bytes):
        return find(file, end)
    return _found(find, os.fspath(source), end, os.fstat(file.fileno()).st_mtime_ns)


@lru_cache(1024)  # an hour of MP3 takes 20 kB
def _found(find: Callable[[BinaryIO, int], list[Part]], path: str, end: int, modified: int) -> list[Part]:
    with open(path, "rb") as file:
        return find(file, end)


def _chunks(file: BinaryIO, end: int, kind: bytes) -> list[Part]:
    """A WAV file with audio behind what its header claims gets the length of all; libsndfile does not believe AIFF."""
    order, audio = ("<", b"data") if kind[:1] == b"R" else (">", b"SSND")
    at, known, name = 12, 0, b""  # `known`: length in the ds64 chunk of RF64
    while at + 8 <= end and name != audio:
        file.seek(at)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"ds64":
            known = int.from_bytes(file.read(16)[8:], "little")
        at += 8 + (0 if name == audio else length + length % 2)
    if name != audio:
        return []
    present, claimed = end - at, known if length == 0xFFFFFFFF else length
    if present + SLACK < claimed < UNKNOWN:
        raise ContainerError(f"is truncated: {present:,} of {claimed:,} bytes of audio are there")
    file.seek(at + claimed)
    other = rb".?[\w ]{4}" + (rb"|\0{8}" if claimed else b"")  # a chunk, after an odd one perhaps, or padding
    if order == ">" or present <= claimed + SLACK or re.match(other, file.read(8)):
        return []
    file.seek(8)
    head = b"RIFF" + b"\xff" * 4 + file.read(at - 12) + b"\xff" * 4  # libsndfile looks how much there is
    return [_link(file, head, at, end)]


def _ogg(file: BinaryIO, end: int) -> list[Part]:
    """The links of chained Ogg (RFC 3533, section 4): each begins after pages of another one."""
    at, starts, began = 0, [], False
    while at + 27 <= end:
        file.seek(at)
        page = file.read(27)
        if page[:4] != b"OggS":
            break
        begins = bool(page[5] & 2)
        if begins and not began:
            starts.append(at)
        began = begins
        at += 27 + page[26] + sum(file.read(page[26]))
    return [_link(file, b"", *ends) for ends in zip(starts, [*starts[1:], end])] if len(starts) > 1 else []


def _link(file: BinaryIO, head: bytes, start: int, end: int) -> Part:
    with soundfile.SoundFile(View(file, head, start, end)) as stream:
        return Part(stream.frames, stream.samplerate, stream.channels, end, lambda at: (head, start, at))


def _mp3(file: BinaryIO, end: int) -> list[Part]:
    parts = []
    for stream in mp3.streams(file, end):
        header = mp3.parse(stream.header)
        if (stream.claimed - stream.count) * header.samples > header.rate / 10:
            raise ContainerError(f"is truncated: {stream.count:,} of {stream.claimed:,} MP3 frames are there")
        parts.append(Part(stream.frames, header.rate, 2 - header.mono, stream.end, stream.place))
    return parts
