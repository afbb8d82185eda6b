"""A program starts where there is no home, no user name, no display and no UTF-8."""

import getpass
import locale
import os
import pwd
from pathlib import Path

import pytest

from codec.utils.cache import cache_dir, save_json
from codec.utils.environment import prepare


@pytest.fixture
def _as_it_was():
    before, kept = dict(os.environ), locale.setlocale(locale.LC_CTYPE)
    yield
    os.environ.clear()
    os.environ.update(before)
    locale.setlocale(locale.LC_CTYPE, kept)


@pytest.mark.usefixtures("_as_it_was")
def test_a_user_without_a_name_and_a_home(monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "CODEC_CACHE"):
        os.environ.pop(name, None)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    prepare()
    assert str(os.getuid()) in getpass.getuser()
    assert Path.home() in cache_dir().parents
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.usefixtures("_as_it_was")
def test_files_are_utf_8_in_every_locale(tmp_path):
    locale.setlocale(locale.LC_CTYPE, "C")
    prepare()
    with open(tmp_path / "a", "w") as file:  # as libraries do
        file.write("ʃ")
    assert (tmp_path / "a").read_bytes() == "ʃ".encode()


@pytest.mark.usefixtures("_as_it_was")
def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "home").write_text("no folder", encoding="utf-8")
    os.environ["HOME"] = str(tmp_path / "home")
    os.environ.pop("CODEC_CACHE", None)
    save_json(cache_dir() / "test.json", {})
    assert (cache_dir() / "test.json").is_file()
    (cache_dir() / "test.json").unlink()
