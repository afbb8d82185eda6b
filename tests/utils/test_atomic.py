"""Files that are complete or absent, and the caches and schemas built on them."""

import os
import stat

import pytest
import torch

from codec.utils.atomic import atomic_file, refuse_existing, write_atomic
from codec.utils.cache import cached_tensors, load_json, load_tensors, save_json
from codec.utils.errors import InputError


def test_a_file_appears_complete(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "unfinished-a.txt-x1").touch()  # of a killed process
    with atomic_file(tmp_path / "deep" / "a.txt") as file:
        file.write(b"one")
        assert not (tmp_path / "deep" / "a.txt").exists()
        assert os.path.exists(file.name)
    mask = os.umask(0o027)
    write_atomic(tmp_path / "deep" / "a.txt", "zwölf")
    os.umask(mask)
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "zwölf".encode()
    assert stat.S_IMODE((tmp_path / "deep" / "a.txt").stat().st_mode) == 0o640
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]
    with pytest.raises(InputError, match="--force"):
        refuse_existing([tmp_path / "deep" / "a.txt"], force=False)
    refuse_existing([tmp_path / "deep" / "a.txt"], force=True)


def test_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    write_atomic(tmp_path / "a", b"old")
    monkeypatch.setattr("os.fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "a", b"new")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a") as file:
        file.write(b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_caches(tmp_path):
    made = []
    make = lambda: made.append(1) or ({"x": torch.ones(3)}, {"about": "it"})  # noqa: E731
    for _ in range(2):
        tensors, about = cached_tensors(tmp_path / "a" / "b.safetensors", make)
        assert torch.equal(tensors["x"], torch.ones(3))
        assert about == {"about": "it"}
    assert made == [1]
    (tmp_path / "a" / "b.safetensors").write_bytes(b"damaged")
    assert load_tensors(tmp_path / "a" / "b.safetensors") is None
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="CODEC_CACHE"):
        cached_tensors(tmp_path / "file" / "b.safetensors", make)
    save_json(tmp_path / "file" / "c.json", {})  # not written, and no error
    save_json(tmp_path / "c.json", {"a": 1})
    assert load_json(tmp_path / "c.json") == {"a": 1}
    (tmp_path / "c.json").write_text("[")
    assert load_json(tmp_path / "c.json") == {}
