"""The synthetic corpus."""

import itertools
from pathlib import Path

import pytest
import torch

from codec.data import espeak
from codec.data.base import CorpusError
from codec.data.espeak import EspeakCorpus
from codec.data.folder import FolderCorpus
from tests.helpers.ranks import at_once


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return EspeakCorpus(22_050, voices=48, utterances=1, cache=tmp_path_factory.mktemp("espeak"))


def test_two_fresh_generations_are_equal(tmp_path):
    one, two = (espeak.generate(6, 2, 5, tmp_path / name) for name in ("one", "two"))
    files = sorted(path.name for path in one.iterdir())
    assert len(files) == 13
    assert files == sorted(path.name for path in two.iterdir())
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in files)
    assert (espeak.generate(6, 2, 6, tmp_path / "one") / "manifest.csv").read_bytes() != (
        one / "manifest.csv"
    ).read_bytes()


def test_phones_are_inside_the_audio_and_increase(corpus):
    for split in ("train", "val"):
        for i in corpus.splits[split]:
            seconds = corpus.lengths[i] / corpus.sample_rate
            times = [float(phone.rpartition("@")[2]) for phone in corpus.recording(i).phones.split()]
            assert len(times) > 10
            assert 0 <= times[0] < 0.2
            assert all(a < b for a, b in itertools.pairwise(times))
            assert seconds - 0.7 < times[-1] < seconds


def test_a_pause_is_quieter_than_speech(corpus):
    speech, pauses = [], []
    for item in corpus.clips("val"):
        ends = [time for _, time in item["phones"][1:]] + [item["wav"].shape[-1] / corpus.sample_rate]
        for (symbol, begin), end in zip(item["phones"], ends, strict=True):
            piece = item["wav"][0, int(begin * corpus.sample_rate) : int(end * corpus.sample_rate)]
            (pauses if symbol == "_" else speech).append(piece)
    assert torch.cat(pauses).std() < 0.3 * torch.cat(speech).std()


def test_there_are_many_voices_and_splits_share_none(corpus):
    voices = {split: {corpus.recording(i).speaker for i in corpus.splits[split]} for split in ("train", "val")}
    assert len(voices["train"] | voices["val"]) >= 40
    assert len(voices["val"]) >= 4
    assert not voices["train"] & voices["val"]
    assert len({voice.partition("+")[2] for voice in voices["train"] | voices["val"]}) == 48
    assert all(corpus.recording(i).text for i in range(corpus.size))


def test_it_resamples_and_crops(corpus):
    item = FolderCorpus(corpus.root, 24_000).crops(24_000, 0)[3]
    assert item["wav"].shape == (1, 24_000)
    assert item["wav"].std() > 0.005
    assert item["speaker"]
    assert item["phones"]
    assert all(0 <= time < 1 for _, time in item["phones"])


def test_only_the_languages_asked_for_are_spoken(tmp_path):
    folder = espeak.generate(4, 1, 0, tmp_path, ["fr", "en"])
    assert folder != espeak.generate(4, 1, 0, tmp_path, ["en"])
    assert {path.name[:2] for path in folder.glob("*.flac")} == {"en", "fr"}
    with pytest.raises(CorpusError, match="no sentences in xx"):
        espeak.generate(4, 1, 0, tmp_path, ["xx"])


def make(rank: int, cache: Path, results: Path) -> None:
    (results / str(rank)).write_text(str(espeak.generate(4, 1, 0, cache)))


def test_two_processes_at_once_make_one_corpus(tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "results"
    results.mkdir()
    at_once(make, cache, results)
    folders = {(results / rank).read_text() for rank in "01"}
    assert {str(path) for path in cache.iterdir()} == folders


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(CorpusError, match="voices") as caught:
        espeak.generate(100_000, 1, 0, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
