"""MP3 by its frames: how many there are, whatever a header claims, and places where decoding can begin.

libmpg123 (in libsndfile) guesses the length of a file without a Xing header from its first frame, reads the first of
joined files only, and passes over all frames before a crop.
"""

import os
import re
import struct
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import BinaryIO, NamedTuple

STEP = 64  # frames between two places
PREROLL = 40 * 1152  # samples to decode before those wanted: a frame may use bits of several frames before it
DECODER_DELAY = 529  # samples that libmpg123 removes from the start if there is a Xing header
WINDOW = 2**17  # bytes searched at a time
SHORT = 2**21  # bytes of a file in which libmpg123 finds a crop at once
TAGS = (b"Xing", b"Info")
LAYER_3 = b"\xe2\xe3\xf2\xf3\xfa\xfb"  # second bytes of the headers of MPEG 2.5, 2 and 1
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}  # Hz, by version
HIGH = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s of MPEG 1
LOW = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)

_LOCK = Lock()


class Header(NamedTuple):
    """Header of a layer III frame (ISO 11172-3, 2.4.1.3)."""

    samples: int
    rate: int  # Hz
    mono: bool
    size: int  # bytes
    side: int  # bytes of header and side information


@lru_cache(4096)
def parse(header: bytes) -> Header | None:
    """The first four bytes of a frame; None if they are not."""
    if len(header) < 4 or header[0] != 0xFF or header[1] not in LAYER_3:
        return None
    version, bitrate, rate, mono = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3, header[3] >> 6 == 3
    if bitrate in (0, 15) or rate == 3:
        return None
    samples, bitrates, sides = (1152, HIGH, (32, 17)) if version == 3 else (576, LOW, (17, 9))
    hertz = RATES[version][rate]
    size = samples * 125 * bitrates[bitrate - 1] // hertz + (header[2] >> 1 & 1)
    return Header(samples, hertz, mono, size, 4 + sides[mono])


@dataclass
class Mp3Stream:
    """Frames of one kind in a row. `places` are the offsets of every STEP-th one, `delay` and `padding` the encoder's
    in samples, `claimed` the frames that a Xing header promises (0: there is none)."""

    header: bytes
    claimed: int = 0
    delay: int = 0
    padding: int = 0
    count: int = 0
    end: int = 0
    places: array = field(default_factory=lambda: array("q"))

    @property
    def frames(self) -> int:
        """Samples per channel that libmpg123 decodes."""
        unused = max(DECODER_DELAY, self.padding if self.count <= self.claimed else 0)
        return self.count * parse(self.header).samples - self.delay - unused

    def place(self, at: int) -> tuple[bytes, int, int]:
        """(a header, the offset to decode from, the number of samples before sample `at`)."""
        at, samples = at + self.delay, parse(self.header).samples
        number = max(0, at - PREROLL) // (samples * STEP)
        first = number * STEP
        return xing(self.header, self.count - first), self.places[number], at - first * samples


@contextmanager
def quiet(noisy: bool = True) -> Iterator[None]:
    """Hold back what libmpg123 writes to standard error; what others write meanwhile follows at the end."""
    with _LOCK if noisy else nullcontext():
        try:
            saved = os.dup(2) if noisy else None
        except OSError:  # standard error is closed
            saved = None
        if saved is None:
            yield
            return
        with tempfile.TemporaryFile() as caught:
            os.dup2(caught.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(saved, 2)
                os.close(saved)
                caught.seek(0)
                for line in caught:
                    if b"libmpg123" not in line and b"Xing stream size" not in line:
                        os.write(2, line)


def streams(file: BinaryIO, end: int) -> list[Mp3Stream]:
    """The streams of a file of `end` bytes: one begins with a Xing header, or with frames of another kind. [] if there
    are none, or the file is short and its header agrees with its size: libmpg123 is right about it."""
    found: list[Mp3Stream] = []
    kind = None
    for at, start, header, rest in _frames(file, end):
        tag = rest.startswith(TAGS, header.side - 4) or rest.startswith(b"VBRI", 32)
        if tag or header[:3] != kind:
            found.append(Mp3Stream(start))
            kind = header[:3]
        if tag:
            size = _read_tag(found[-1], start + rest, header.side)
            if len(found) == 1 and end < SHORT and at + size <= end <= at + size + size // 100 + 128:
                return []
            continue
        if found[-1].count % STEP == 0:
            found[-1].places.append(at)
        found[-1].count += 1
        found[-1].end = at + header.size
    return [stream for stream in found if stream.count > 1]


def xing(like: bytes, count: int) -> bytes:
    """A frame with a Xing header: `count` frames of the kind of header `like` follow it. It has no room for more."""
    headers = (bytes([0xFF, like[1] | 1, bitrate << 4 | like[2] & 0x0C, like[3]]) for bitrate in range(1, 15))
    header = next(header for header in headers if parse(header).size >= parse(header).side + 12)
    frame = header.ljust(parse(header).side, b"\0") + b"Xing" + struct.pack(">II", 1, count)
    return frame.ljust(parse(header).size, b"\0")


def _read_tag(stream: Mp3Stream, frame: bytes, at: int) -> int:
    """Number of frames of a Xing or VBRI header at `at`, and the encoder's delay and padding in LAME's part of it ->
    the bytes that it claims, 0 if none."""
    if frame[36:40] == b"VBRI":
        stream.claimed = int.from_bytes(frame[50:54])
        return 0
    numbers = struct.unpack_from(">III", frame.ljust(at + 16, b"\0"), at + 4)
    flags, claims = numbers[0], iter(numbers[1:])
    stream.claimed = next(claims) if flags & 1 else 0
    lame = at + 8 + 4 * (flags & 1) + 2 * (flags & 2) + 25 * (flags & 4) + (flags & 8) // 2
    if frame[lame : lame + 1] > b"\0":
        both = int.from_bytes(frame[lame + 21 : lame + 24])
        stream.delay, stream.padding = both >> 12, both & 0xFFF
    return next(claims) if flags & 2 else 0


def _frames(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes, Header, bytes]]:
    """(offset, first four bytes, header, the rest and the first four bytes of the next) of each whole frame."""
    at, start = 0, b""
    while at < end:
        header = parse(start)
        if header is None:
            at = _sync(file, at, end)
            file.seek(at)
            start = file.read(4)
            continue
        rest = file.read(header.size)
        if len(rest) < header.size - 4:
            return
        yield at, start, header, rest
        at, start = at + header.size, rest[header.size - 4 :]


def _sync(file: BinaryIO, at: int, end: int) -> int:
    """Offset of the first of two frames in a row at or behind `at`, or `end`; ID3 tags, which may hold anything, are
    passed over."""
    while at < end:
        file.seek(at)
        window = file.read(WINDOW)
        for match in re.finditer(rb"ID3|\xff[" + LAYER_3 + rb"]", window):
            here = match.start()
            if match[0] == b"ID3" and here + 10 <= len(window):
                at += here + 10 + sum((byte & 127) << shift for byte, shift in zip(window[here + 6 :], (21, 14, 7, 0)))
                break
            header = parse(window[here : here + 4])
            if header and at + here + header.size <= end:
                file.seek(at + here + header.size)
                following = parse(file.read(4))
                if at + here + header.size == end or (following and following[:3] == header[:3]):
                    return at + here
        else:
            at += max(1, len(window) - 9)  # what is looked for may begin in this window and end in the next one
    return end
