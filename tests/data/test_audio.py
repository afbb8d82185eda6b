"""Reading: what a crop is, and what happens to files that are none."""

import numpy as np
import pytest
import soundfile

from codec.data import audio
from codec.data.audio import AudioError
from tests.helpers.signals import speechlike


@pytest.mark.parametrize(("theirs", "ours"), [(24_000, 16_000), (16_000, 24_000), (44_100, 24_000), (11_127, 24_000)])
def test_a_resampled_crop_is_that_piece_of_the_resampled_file(tmp_path, write, theirs, ours):
    path = write(tmp_path / "a.flac", 3.0, theirs)
    whole = audio.read(path, ours)
    for start, samples in ((0, 4000), (1, 4001), (23_457, 8000), (len(whole) - 3000, 5000)):
        crop = audio.read(path, ours, start, samples)
        expected = whole[start : start + samples]
        assert len(crop) == len(expected)
        np.testing.assert_allclose(crop, expected, atol=1e-5)


def test_a_crop_at_the_own_rate_is_exact(tmp_path, write):
    path = write(tmp_path / "a.flac", 1.0)
    np.testing.assert_array_equal(audio.read(path, 16_000, 5000, 100), audio.read(path, 16_000)[5000:5100])


def test_a_tone_keeps_pitch_and_place(tmp_path):
    time = np.arange(3 * 44_100) / 44_100
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 440 * time), 44_100, subtype="FLOAT")
    wav = audio.read(tmp_path / "a.wav", 16_000, 16_000, 8000)
    np.testing.assert_allclose(wav, 0.5 * np.sin(2 * np.pi * 440 * (16_000 + np.arange(8000)) / 16_000), atol=1e-4)


def test_bytes_and_path_give_the_same(tmp_path, write):
    path = write(tmp_path / "a.ogg", 1.0)
    np.testing.assert_array_equal(audio.read(path.read_bytes(), 24_000), audio.read(path, 24_000))


def test_stereo_becomes_the_mean(tmp_path):
    wav = np.stack([np.full(1000, 0.5), np.full(1000, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", wav, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav", 16_000), 0.125)


def test_8_bit_is_audio(tmp_path, write):
    eight = audio.read(write(tmp_path / "a.wav", 1.0, subtype="PCM_U8"), 16_000)
    sixteen = audio.read(write(tmp_path / "b.wav", 1.0), 16_000)
    np.testing.assert_allclose(eight, sixteen, atol=0.01)


@pytest.mark.parametrize("ending", ["ogg", "mp3", "flac", "wav"])
def test_lengths_agree_with_the_header(tmp_path, write, ending):
    path = write(tmp_path / f"a.{ending}", 1.0, 24_000)
    assert len(audio.read(path, 16_000)) == audio.length(*audio.probe(path), 16_000) == 16_000


def test_output_stays_within_full_scale(tmp_path):
    square = np.sign(np.sin(np.arange(24_000) / 20)) * 1.2
    soundfile.write(tmp_path / "a.wav", square, 24_000, subtype="FLOAT")
    assert np.abs(audio.read(tmp_path / "a.wav", 16_000)).max() <= 1


KINDS = sorted({*soundfile.available_formats(), *audio.ENDINGS} - {"RAW"})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in audio.ENDINGS or soundfile.default_subtype(kind)])
def test_a_long_recording_is_written_whole_in_every_format_or_refused(tmp_path, kind, monkeypatch):
    """100 s at 24 kHz in one block: libsndfile crashes on that of Vorbis; some formats know no such rate or length."""
    second, seconds = speechlike(1.0, 24_000, 0), 10 if kind in ("OPUS", "MP3") else 100
    path = tmp_path / f"a.{kind.lower()}"
    monkeypatch.chdir(tmp_path)
    try:
        audio.write(path, [np.tile(second, seconds)], 24_000)
    except AudioError:
        assert kind not in ("WAV", "FLAC", "OGG", "OPUS", "OGA", "MP3", "AIFF", "AIF", "AU", "CAF", "W64", "RF64")
        assert not list(tmp_path.iterdir())
        return
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert len(audio.read(path, 24_000)) == pytest.approx(seconds * 24_000, abs=50)
    found = audio.read(path, 24_000, (seconds - 5) * 24_000, 24_000)
    assert np.corrcoef(found, second)[0, 1] > 0.8


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    for name, rate in (("a.xyz", 16_000), ("a", 16_000), ("a.opus", 44_100), ("a.mp3", 1600), ("a.wve", 16_000)):
        with pytest.raises(AudioError, match="cannot be written"):
            audio.write(tmp_path / name, [np.zeros(1000)], rate)
    assert not list(tmp_path.iterdir())
