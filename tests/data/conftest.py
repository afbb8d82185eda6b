import atexit
import os
import shutil
import tempfile

# Before any test module imports `datasets`, which reads these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="codec-tests-")

import pytest
import soundfile

from tests.helpers.signals import noise

atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """The user's own cache stays as it is."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("CODEC_CACHE")
    os.environ["CODEC_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["CODEC_CACHE"]
    else:
        os.environ["CODEC_CACHE"] = before


@pytest.fixture
def write():
    def write(path, seconds=1.0, rate=16_000, seed=0, **options):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(round(seconds * rate), seed), rate, **options)
        return path

    return write


@pytest.fixture
def folder(tmp_path, write):
    """Ten FLAC files of 0.3 to 3 s at 16 kHz."""
    root = tmp_path / "speech"
    for i in range(10):
        write(root / f"part{i % 2}" / f"{i}.flac", 0.3 * (i + 1), seed=i)
    return root
