"""The synthetic corpus."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from codec.data import espeak
from codec.data.base import CorpusError
from codec.data.espeak import EspeakCorpus
from codec.data.folder import FolderCorpus
from tests.helpers.shards import content


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return EspeakCorpus(22_050, voices=48, utterances=1, cache=tmp_path_factory.mktemp("espeak"))


def test_the_same_arguments_give_the_same_files_also_when_generated_twice_at_once(tmp_path):
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: espeak.generate(4, 1, 5, cache), range(2))
    assert one == two
    assert list(cache.iterdir()) == [one]
    again = espeak.generate(4, 1, 5, tmp_path / "again")
    assert len(list(again.iterdir())) == 5
    assert content(again) == content(one)
    other = espeak.generate(4, 1, 6, tmp_path / "again")
    assert (other / "manifest.csv").read_bytes() != (again / "manifest.csv").read_bytes()


def test_phones_are_inside_the_audio_and_in_order(corpus):
    for i in range(corpus.size):
        seconds = corpus.lengths[i] / corpus.sample_rate
        times = [float(phone.rpartition("@")[2]) for phone in corpus.recording(i).phones.split()]
        assert len(times) > 10
        assert 0 <= times[0] < 0.2
        assert all(a < b for a, b in itertools.pairwise(times))
        assert seconds - 0.7 < times[-1] < seconds


def test_a_pause_is_quieter_than_speech(corpus):
    speech, pauses = [], []
    for item in corpus.clips("test"):
        ends = [time for _, time in item["phones"][1:]] + [item["wav"].shape[-1] / corpus.sample_rate]
        for (symbol, begin), end in zip(item["phones"], ends, strict=True):
            piece = item["wav"][0, int(begin * corpus.sample_rate) : int(end * corpus.sample_rate)]
            (pauses if symbol == "_" else speech).append(piece)
    assert torch.cat(pauses).std() < 0.3 * torch.cat(speech).std()


def test_splits_have_different_voices(corpus):
    voices = [{corpus.recording(i).speaker for i in corpus.splits[split]} for split in ("train", "val", "test")]
    assert min(map(len, voices)) >= 4
    assert len({voice.partition("+")[2] for voice in set.union(*voices)}) == sum(map(len, voices)) == 48
    assert corpus.held_out_by == "speaker"
    assert all(corpus.recording(i).text for i in range(corpus.size))
    item = FolderCorpus(corpus.root, 24_000).crops(24_000, 0)[3]  # also at another rate
    assert item["wav"].std() > 0.005
    assert item["speaker"]
    assert item["phones"]
    assert all(0 <= time < 1 for _, time in item["phones"])


def test_languages_can_be_selected(tmp_path):
    folder = espeak.generate(4, 1, 0, tmp_path, ["fr", "en"])
    assert {path.name[:2] for path in folder.glob("*.flac")} == {"en", "fr"}


@pytest.mark.parametrize(("voices", "languages", "word"), [(4, ["xx"], "xx"), (100_000, None, "voices")])
def test_a_failure_leaves_nothing_behind(tmp_path, voices, languages, word):
    with pytest.raises(CorpusError, match=word) as caught:
        espeak.generate(voices, 1, 0, tmp_path, languages)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
