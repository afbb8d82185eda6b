"""Sound of a report is read from its own folder, or it is said which file cannot be."""

import dataclasses
import shutil

import numpy as np
import pytest
import soundfile

from codec.evaluation.html.listening import write_listening_test
from codec.evaluation.html.report import write_page
from codec.evaluation.report import ReportError
from tests.helpers.speech import RATE


def linked(entry, folder, change):
    """The system with copies of its files in another folder, the decoded one of the first clip replaced."""
    shutil.copytree(entry.folder, folder)
    clip, files = next(iter(entry.report.audio.items()))
    file = folder / files["decoded"]
    file.unlink()
    change(file)
    report = dataclasses.replace(entry.report, audio={clip: files})
    return dataclasses.replace(entry, report=report, folder=folder)


def test_sound_that_cannot_be_read_is_named(entries, tmp_path):
    stereo = np.zeros((RATE, 2), np.int16)
    damages = [
        (lambda file: file.write_text("no sound"), "cannot be read"),
        (lambda file: file.symlink_to(file), "outside of its folder"),
        (lambda file: file.symlink_to(file.parent / "none"), "not there"),
        (lambda file: soundfile.write(file, stereo, RATE), "one channel"),
        (lambda file: soundfile.write(file, stereo[:0, 0], RATE), "cannot be read"),
    ]
    for n, (damage, why) in enumerate(damages):
        system = linked(entries[0], tmp_path / str(n), damage)
        for write in (write_page, write_listening_test):
            with pytest.raises(ReportError, match=why) as caught:
                write(tmp_path / "page.html", [system], "Damaged")
            assert next(iter(system.report.audio.values()))["decoded"] in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_sound_from_outside_of_the_folder_is_not_embedded(entries, tmp_path):
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, np.zeros(RATE, np.int16), RATE)
    link = linked(entries[0], tmp_path / "link", lambda file: file.symlink_to(secret))
    clip, files = next(iter(link.report.audio.items()))
    named = []
    for file in ("../secret.wav", str(secret)):  # as `Report.read` would not let pass
        report = dataclasses.replace(link.report, audio={clip: files | {"reference": file}})
        named.append(dataclasses.replace(link, report=report))
    for system in (link, *named):
        for write in (write_page, write_listening_test):
            with pytest.raises(ReportError, match="outside of its folder"):
                write(tmp_path / "page.html", [system], "Secret")
    inside = linked(entries[0], tmp_path / "in", lambda f: f.symlink_to(f.parent.parent / files["reference"]))
    assert write_page(tmp_path / "page.html", [inside], "Inside").is_file()
