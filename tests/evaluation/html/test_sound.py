"""Audio of a page: files of the report's folder only, FLAC or Ogg Opus."""

import base64
import dataclasses
import io
import shutil

import numpy as np
import pytest
import soundfile

from codec.evaluation.baselines.opus import RATES
from codec.evaluation.html.report import write_page
from codec.evaluation.html.sound import OPUS, audio_uri, int16, read_audio
from codec.evaluation.report import ReportError
from tests.helpers.speech import RATE, clip

STEREO = np.zeros((RATE, 2), np.int16)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda file: file.write_text("no sound"), "cannot be read"),
        (lambda file: file.symlink_to(file.parent / "none"), "does not exist"),
        (lambda file: soundfile.write(file, STEREO, RATE), "one channel"),
        (lambda file: file.symlink_to("/etc/hostname"), "outside of its folder"),
    ],
)
def test_unusable_files_are_named_and_no_page_is_written(results, tmp_path, damage, word):
    shutil.copytree(results[0].folder, tmp_path / "report")
    name, files = next(iter(results[0].report.audio.items()))
    file = tmp_path / "report" / files["decoded"]
    file.unlink()
    damage(file)
    report = dataclasses.replace(results[0].report, audio={name: files})
    result = dataclasses.replace(results[0], report=report, folder=tmp_path / "report")
    with pytest.raises(ReportError, match=word) as error:
        write_page(tmp_path / "page.html", [result], "Damaged")
    assert files["decoded"] in str(error.value)
    assert not (tmp_path / "page.html").exists()


def test_paths_out_of_the_folder_are_refused_and_links_inside_followed(results, tmp_path):
    (tmp_path / "report").mkdir()
    secret, inside = tmp_path / "secret.wav", tmp_path / "report" / "file.wav"
    for file in (secret, inside):
        soundfile.write(file, STEREO[:, 0], RATE)
    inside.with_name("link.wav").symlink_to(inside)
    for file in ("../secret.wav", str(secret)):
        report = dataclasses.replace(results[0].report, audio={"a": {"reference": file, "decoded": "link.wav"}})
        result = dataclasses.replace(results[0], report=report, folder=inside.parent)
        with pytest.raises(ReportError, match="outside of its folder"):
            read_audio(result, "a", "reference")
        assert read_audio(result, "a", "decoded")[1] == RATE


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_opus_is_the_clip_at_the_next_rate_that_it_supports(rate):
    wav = int16(clip(0, 1.3, rate)["wav"][0].numpy())
    file = base64.b64decode(audio_uri((wav, rate), OPUS).removeprefix("data:audio/ogg;base64,"))
    decoded, known = soundfile.read(io.BytesIO(file))
    assert known == next(supported for supported in RATES if supported >= rate)
    assert len(decoded) / known == pytest.approx(1.3, abs=0.001)
    assert len(file) * 8 / 1.3 < 100_000
    assert np.abs(np.fft.rfft(decoded))[: len(decoded) // 8].argmax() / 1.3 == pytest.approx(110, abs=5)
