"""Phone probes on latents whose content is known."""

import pytest
import torch

from codec.evaluation.judges.phone_edits import said
from codec.evaluation.probing import probes
from codec.evaluation.probing.probes import Head, named, probe
from codec.utils.errors import InputError
from tests.helpers.phone_latents import SYMBOLS, corpus


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    monkeypatch.setattr(probes, "NAMING", 50)
    monkeypatch.setattr(probes, "SPELLING", 50)


@pytest.mark.parametrize("hidden", [None, 64])
def test_what_is_there_is_found_and_what_is_not_is_not(hidden):
    plain = probe(corpus(), hidden=hidden)
    assert plain.phones == len(SYMBOLS)
    assert plain.accuracy.low > 0.8
    assert plain.error_rate.high < 0.3
    assert (plain.accuracy.n, plain.error_rate.n) == (6, 6)
    empty = probe(corpus(clarity=0.0), hidden=hidden)
    assert empty.accuracy.mean < empty.chance + 0.1
    assert empty.chance < 0.3
    assert empty.error_rate.mean > 0.7


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_world_alone():
    latents = corpus(recordings=4)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = probe(latents)
    assert torch.equal(torch.rand(4), expected)
    assert probe(latents) == first
    assert probe(latents, seed=1) != first


@pytest.mark.parametrize(("frame_rate", "parts"), [(12.5, 4), (25.0, 2), (50.0, 1), (75.0, 1), (20.0, 3)])
def test_there_are_fifty_instants_a_second_or_more(frame_rate, parts):
    head = Head(6, 5, frame_rate, None)
    assert head.parts == parts
    assert head(torch.randn(2, 6, 7)).shape == (2, 7 * parts, 6)


@pytest.mark.parametrize("hidden", [None, 8])
def test_a_probe_sees_one_frame_only(hidden):
    head = Head(6, 5, 12.5, hidden).eval()
    x = torch.randn(1, 6, 7)
    changed = x.clone()
    changed[..., 3] += 1
    differs = (head(x) != head(changed)).any(-1)[0]
    assert differs.tolist() == [12 <= i < 16 for i in range(28)]


def test_instants_are_named_by_what_sounds_in_their_middle():
    phones = said([("a", 0.0), ("_", 0.05), ("b", 0.1), ("?", 0.15)], 0.2)
    assert named(phones, ["a", "b"], 10, 50.0).tolist() == [1, 1, 0, 0, 0, 2, 2, 2, 3, 3]


def test_speakers_must_be_held_out_and_phones_known():
    shared = corpus(recordings=4)
    shared.train[0]["speaker"] = "held1"
    with pytest.raises(InputError, match="'held1' is in both"):
        probe(shared)
    mute = corpus(recordings=4)
    for one in mute.train:
        one["phones"] = []
    with pytest.raises(InputError, match="with phones"):
        probe(mute)
