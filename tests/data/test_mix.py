"""Mixtures of corpora."""

from collections import Counter
from itertools import islice

import pytest
import torch

from codec.data.base import CorpusError, Stream
from codec.data.folder import FolderCorpus
from codec.data.mix import MixCorpus

RATE = 16_000


@pytest.fixture
def corpora(tmp_path, write):
    for name in ("a", "b"):
        for i in range(4):
            write(tmp_path / name / f"{i}.wav", 0.5, seed=i + 10 * (name == "b"))
    return {name: FolderCorpus(tmp_path / name, RATE, holdout=0.25) for name in ("a", "b")}


def source(item):
    return item["file"].partition("/")[0]


def test_frequencies_follow_the_weights(corpora):
    crops = MixCorpus(corpora, {"a": 3, "b": 1}).crops(800, 0)
    count = Counter(source(crops[n]) for n in range(400))
    assert 0.68 < count["a"] / 400 < 0.82
    without = MixCorpus(corpora, {"a": 0, "b": 1})
    assert without.size == 4
    assert {source(without.crops(800, 0)[n]) for n in range(20)} == {"b"}


def test_a_draw_depends_on_seed_and_number_alone(corpora):
    mix = MixCorpus(corpora, {"a": 1, "b": 1})
    one, two = mix.crops(800, 5), mix.crops(800, 5)
    later = two[50]
    assert all(torch.equal(one[n]["wav"], two[n]["wav"]) for n in range(30))
    assert one[50]["file"] == later["file"]


def test_clips_alternate(corpora):
    assert [source(clip) for clip in MixCorpus(corpora, {"a": 9, "b": 1}).clips("val")] == ["a", "b"]


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 1, "b": 1, "c": 1}, {"a": 0, "b": 0}, {"a": -1, "b": 2}])
def test_wrong_weights_are_refused(corpora, weights):
    with pytest.raises(CorpusError, match="weights"):
        MixCorpus(corpora, weights)


def test_different_rates_are_refused(corpora):
    corpora["a"].sample_rate = 24_000
    with pytest.raises(CorpusError, match="24000"):
        MixCorpus(corpora, {"a": 1, "b": 1})


class Endless(Stream):
    def items(self):
        while True:
            yield {"wav": torch.zeros(1, 800), "file": f"{self.rank} of {self.world}", "skipped": [("x", "y")]}


class Streamed(FolderCorpus):
    size = None

    def crops(self, samples, seed):
        return Endless()


def test_a_stream_makes_the_mix_a_stream(corpora):
    corpora["b"].__class__, corpora["b"].size = Streamed, None
    mix = MixCorpus(corpora, {"a": 3, "b": 1})
    items = []
    for rank in range(2):
        crops = mix.crops(800, 0)
        crops.set_reader(rank, 2, 0)
        items.append(list(islice(crops, 300)))
    assert mix.size is None
    assert 0.65 < Counter(map(source, items[0]))["a"] / 300 < 0.85
    assert {item["file"] for item in items[1] if source(item) == "b"} == {"b/1 of 2"}
    assert all(item["skipped"] == [("b/x", "y")] for item in items[0] if source(item) == "b")
