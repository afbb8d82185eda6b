"""Reading: what a crop is, and what happens to files that are none."""

import numpy as np
import pytest
import soundfile

from codec.data import audio


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
