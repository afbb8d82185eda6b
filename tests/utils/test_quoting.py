"""Printed options work when they are pasted: through the shell, Hydra's grammar and OmegaConf."""

import shlex

import pytest
from hydra import compose, initialize

from codec.utils.quoting import option

PATHS = ["runs/a.b-c/x@1+2", "data/lang=en", "Füße/日本", "my folder/x", "~/x", "2026-11-29_17", "1e5", "null", "True"]
PATHS += ["a'b", 'a"b', 'a\\"b', "a\\", "a\\\\", "(x)[y]{z},w", "x;y&z|$HOME `ls` #1!", "a${x}b", "a:b", "", "-x", "%d"]


@pytest.mark.parametrize("path", PATHS)
def test_an_option_is_read_as_it_was_meant(path):
    (word,) = shlex.split(option("run_dir", path))
    with initialize(version_base="1.3", config_path="../../conf"):
        assert compose("train", overrides=[word]).run_dir == path


def test_plain_paths_stay_as_they_are():
    assert option("ckpt", "/home/me/runs/codec/2026-11-29_17-22-25-494338") == (
        "ckpt=/home/me/runs/codec/2026-11-29_17-22-25-494338"
    )
