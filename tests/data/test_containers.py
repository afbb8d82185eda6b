"""Files that hold more, or less, than their headers say: all of it is read, a crop is a part of the whole, or it is an
error."""

import io
import os
import sys

import numpy as np
import pytest
import soundfile

from codec.data import audio, mp3
from codec.data.audio import AudioError
from codec.data.folder import FolderCorpus
from codec.latents.audio_files import read_blocks
from tests.helpers.signals import speechlike

RATE = 24_000


def encoded(audio_format, seconds=4.0, rate=RATE, **options):
    """Bytes of a file with silence, then speech: a variable bitrate varies."""
    wav = np.concatenate([np.zeros(rate // 2), speechlike(seconds - 0.5, rate, 0)])
    file = io.BytesIO()
    soundfile.write(file, wav, rate, format=audio_format, **options)
    return file.getvalue()


def vbr(seconds=4.0, rate=RATE):
    return encoded("MP3", seconds, rate, bitrate_mode="VARIABLE", compression_level=0.5)


def without_xing(content):
    """Without its first frame."""
    assert b"Xing" in content[:60]
    return content[mp3.parse(content[:4]).size :]


def with_length(content, value, name=b"data"):
    at = content.index(name) + 4
    return content[:at] + value.to_bytes(4, "little") + content[at + 4 :]


def id3(size):
    """A tag that holds what looks like frames."""
    body = (b"\xff\xfb\x90\x44" * (size // 4 + 1))[:size]
    return b"ID3\x04\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + body


def rf64(content):
    """A WAV file as FFmpeg writes RF64 to a pipe."""
    return (
        b"RF64"
        + b"\xff" * 4
        + b"WAVEds64"
        + (28).to_bytes(4, "little")
        + bytes(28)
        + with_length(content, 2**32 - 1)[12:]
    )


def au(content, value):
    return content[:8] + value.to_bytes(4, "big") + content[12:]


def flac_from_pipe(content):
    """STREAMINFO has 36 bits for the number of samples, from the middle of byte 21 on; 0 is unknown."""
    return content[:21] + bytes([content[21] & 0xF0, 0, 0, 0, 0]) + content[26:]


LYING = {  # name: (seconds that are there, the file)
    "vbr.mp3": (4, lambda: without_xing(vbr())),
    "tagged.mp3": (4, lambda: id3(5000) + without_xing(vbr()) + b"TAG" + bytes(125)),
    "joined.mp3": (8, lambda: vbr() + vbr()),
    "joined_with_tags.mp3": (8, lambda: id3(300) + vbr() + id3(70_000) + vbr()),
    "joined_without_xing.mp3": (8, lambda: 2 * without_xing(vbr())),
    "garbage_between.mp3": (8, lambda: vbr() + os.urandom(3000).replace(b"\xff", b"\xfe") + vbr()),
    "low_rate.mp3": (4, lambda: without_xing(vbr(rate=8000))),
    "joined.ogg": (8, lambda: 2 * encoded("OGG")),
    "joined.opus": (12, lambda: 3 * encoded("OGG", subtype="OPUS")),
    "zero.wav": (4, lambda: with_length(encoded("WAV"), 0)),
    "zero_everywhere.wav": (4, lambda: with_length(with_length(encoded("WAV"), 0), 0, b"RIFF")),
    "stale.wav": (4, lambda: with_length(encoded("WAV"), RATE)),  # a recorder that crashed
    "unknown.wav": (4, lambda: with_length(encoded("WAV"), 2**32 - 1)),
    "sox.wav": (4, lambda: with_length(encoded("WAV"), 0x7FFFF000)),
    "pipe.rf64.wav": (4, lambda: rf64(encoded("WAV"))),
    "float_zero.wav": (4, lambda: with_length(encoded("WAV", subtype="FLOAT"), 0)),
    "zero.au": (4, lambda: au(encoded("AU"), 0)),
    "unknown.au": (4, lambda: au(encoded("AU"), 2**31 - 1)),
}


def check(path, seconds):
    """Index, whole, bytes, blocks and crops agree."""
    frames, rate = audio.probe(path)
    assert frames / rate == pytest.approx(seconds, abs=0.12)
    whole = audio.read(path, rate)
    assert len(whole) == frames
    assert np.abs(whole[-rate // 2 :]).max() > 0.05
    np.testing.assert_array_equal(audio.read(path.read_bytes(), rate), whole)
    np.testing.assert_allclose(np.concatenate(list(read_blocks(path, rate))), whole, atol=1e-6)
    for start in (0, 1000, frames // 2 - 700, frames // 2 + 37, frames - 3000):
        np.testing.assert_allclose(audio.read(path, rate, start, 3000), whole[start : start + 3000], atol=1e-6)
    return whole


@pytest.mark.parametrize("name", LYING)
def test_all_that_is_there_is_read(tmp_path, name):
    seconds, make = LYING[name]
    (tmp_path / name).write_bytes(make())
    check(tmp_path / name, seconds)
    assert FolderCorpus(tmp_path, RATE).lengths[0] / RATE == pytest.approx(seconds, abs=0.12)


@pytest.mark.parametrize("name", ["vbr.mp3", "joined.mp3", "joined.ogg", "zero.wav"])
def test_the_sound_is_that_of_a_file_that_says_the_truth(tmp_path, name):
    honest = {"mp3": vbr, "ogg": lambda: encoded("OGG"), "wav": lambda: encoded("WAV")}[name[-3:]]()
    (tmp_path / name).write_bytes(LYING[name][1]())
    expected, found = audio.read(honest, RATE), audio.read(tmp_path / name, RATE)
    delay = 576 if name == "vbr.mp3" else 0  # the encoder's, which the Xing header would say
    pieces = [found[delay : delay + len(expected)]]
    if name.startswith("joined"):
        pieces.append(found[len(expected) :])
    for piece in pieces:
        np.testing.assert_allclose(piece, expected[: len(piece)], atol=1e-6)


def test_flac_from_a_pipe_and_formats_of_others(tmp_path):
    av = pytest.importorskip("av", reason="pip install -r requirements-media.txt")
    (tmp_path / "pipe.flac").write_bytes(flac_from_pipe(encoded("FLAC")))
    np.testing.assert_allclose(check(tmp_path / "pipe.flac", 4), audio.read(encoded("FLAC"), RATE), atol=1e-4)
    for name, codec in (("a.m4a", "aac"), ("a.webm", "libopus"), ("a.aac", "aac"), ("a.mp4", "alac")):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            wav = speechlike(4.0, 48_000, 0).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(wav, format="fltp", layout="mono")
            frame.sample_rate = 48_000
            resampler = av.AudioResampler(stream.format, "mono", 48_000, frame_size=stream.frame_size or 960)
            for part in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        check(tmp_path / name, 4)


def test_without_its_decoder_a_format_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    with pytest.raises(AudioError, match="requirements-media"):
        audio.probe(tmp_path / "a.m4a")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("WAV", "GSM610"),
        ("WAV", "IMA_ADPCM"),
        ("WAV", "MS_ADPCM"),
        ("WAV", "G721_32"),
        ("AU", "G721_32"),
        ("AU", "G723_24"),
        ("WAV", "NMS_ADPCM_16"),
        ("W64", "GSM610"),
    ],
)
def test_files_that_cannot_seek_are_decoded_in_order(tmp_path, name, options):
    path = tmp_path / f"a.{name.lower()}"
    path.write_bytes(encoded(name, rate=8000, subtype=options))
    check(path, 4)


@pytest.mark.parametrize("name", ["mp3", "wav", "aiff", "flac", "ogg"])
def test_half_a_file_is_an_error_or_ends_where_it_does(tmp_path, name):
    content = encoded(name.upper(), 8.0) if name != "mp3" else vbr(8.0)
    (tmp_path / f"a.{name}").write_bytes(content[: len(content) // 2])
    if name == "ogg":  # claims nothing
        assert len(audio.read(tmp_path / "a.ogg", RATE)) > 2 * RATE
        return
    with pytest.raises(AudioError, match=r"truncated|lost sync"):
        audio.read(tmp_path / f"a.{name}", RATE)


@pytest.mark.parametrize(
    "behind", [b"LIST" + (3000).to_bytes(4, "little") + b"\xd1" * 3000, bytes(3000), b"\xd1" * 500]
)
def test_what_is_behind_the_audio_of_a_wav_file_is_none(behind):
    assert audio.probe(encoded("WAV") + behind) == (4 * RATE, RATE)


def test_recordings_of_different_rates_are_not_joined(tmp_path):
    for name, parts in (("a.mp3", [vbr(), vbr(rate=16_000)]), ("a.ogg", [encoded("OGG"), encoded("OGG", rate=16_000)])):
        (tmp_path / name).write_bytes(b"".join(parts))
        with pytest.raises(AudioError, match="different rates"):
            audio.probe(tmp_path / name)


def test_a_crop_of_an_hour_of_mp3_is_decoded_from_near_it(tmp_path, monkeypatch):
    """A crop of a file larger than SHORT reads a few frames of it, and equals the whole."""
    monkeypatch.setattr(mp3, "SHORT", 0)
    (tmp_path / "a.mp3").write_bytes(vbr(40.0))
    whole = check(tmp_path / "a.mp3", 40)
    np.testing.assert_allclose(whole, soundfile.read(tmp_path / "a.mp3", dtype="float32")[0], atol=1e-6)
    content = (tmp_path / "a.mp3").read_bytes()
    stream = mp3.streams(io.BytesIO(content), len(content))[0]
    assert stream.place(30 * RATE)[1] > stream.place(20 * RATE)[1] > stream.places[0]


def test_libmpg123_writes_nothing_and_others_do(tmp_path, capfd):
    (tmp_path / "a.mp3").write_bytes(vbr(12.0))
    for start in range(0, 10 * RATE, RATE):
        audio.read(tmp_path / "a.mp3", RATE, start + 77, 4000)
    assert capfd.readouterr().err == ""
    with mp3.quiet():
        os.write(2, b"[src/libmpg123/layer3.c] error: part2_3_length\nprogress 5 %\n")
    assert capfd.readouterr().err == "progress 5 %\n"
    with pytest.raises(ZeroDivisionError), mp3.quiet():
        raise ZeroDivisionError
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"
