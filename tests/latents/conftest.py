from pathlib import Path
from typing import NamedTuple

import pytest

from codec.model import Codec
from tests.helpers.codecs import latents_of, recordings, saved


class Made(NamedTuple):
    codec: Codec
    ckpt: Path
    source: Path
    folder: Path


@pytest.fixture(scope="package")
def source(tmp_path_factory) -> Path:
    return recordings(tmp_path_factory.mktemp("latents") / "source")


@pytest.fixture(scope="package")
def split(source, tmp_path_factory) -> Made:
    """A codec with a split quantizer, its checkpoint, and its latents before quantization. Not to be changed."""
    folder = tmp_path_factory.mktemp("split")
    codec = saved(folder / "a.ckpt", "split_rvq")
    latents_of(codec, source, folder / "latents")
    return Made(codec, folder / "a.ckpt", source, folder / "latents")
