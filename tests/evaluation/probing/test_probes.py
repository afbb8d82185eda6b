"""Phone probes on latents whose content is known."""

import pytest
import torch

from codec.evaluation.judges.phone_edits import phone_segments
from codec.evaluation.probing import probes
from codec.evaluation.probing.probes import Head, instant_labels, probe
from codec.utils.errors import InputError
from tests.helpers.phone_latents import SYMBOLS, corpus


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr(probes, "FRAME_STEPS", 50)
    monkeypatch.setattr(probes, "CTC_STEPS", 50)


@pytest.mark.parametrize("hidden", [None, 64])
def test_present_phones_are_found_and_absent_ones_are_not(hidden):
    plain = probe(corpus(), hidden=hidden)
    assert plain.phones == len(SYMBOLS)
    assert plain.accuracy.low > 0.8
    assert plain.error_rate.high < 0.3
    assert (plain.accuracy.n, plain.error_rate.n) == (6, 6)
    empty = probe(corpus(clarity=0.0), hidden=hidden)
    assert empty.accuracy.mean < empty.chance + 0.1
    assert empty.chance < 0.3
    assert empty.error_rate.mean > 0.7


def test_a_seed_repeats_itself_and_keeps_the_global_generator(monkeypatch):
    monkeypatch.setattr(probes, "CTC_STEPS", 10)
    latents, state = corpus(recordings=2), torch.get_rng_state()
    first = probe(latents)
    assert torch.equal(torch.get_rng_state(), state)
    assert probe(latents) == first
    assert probe(latents, seed=1) != first


@pytest.mark.parametrize(("frame_rate", "parts"), [(12.5, 4), (75.0, 1), (20.0, 3)])
def test_a_probe_sees_one_frame_and_has_fifty_instants_a_second(frame_rate, parts):
    head = Head(6, 5, frame_rate, hidden=8).eval()
    assert head.parts == parts
    x = torch.randn(1, 6, 7)
    changed = x.clone()
    changed[..., 3] += 1
    differs = (head(x) != head(changed)).any(-1)[0]
    assert differs.tolist() == [3 * parts <= i < 4 * parts for i in range(7 * parts)]


def test_labels_are_the_phones_in_the_middle_of_instants():
    phones = phone_segments([("a", 0.0), ("_", 0.05), ("b", 0.1), ("?", 0.15)], 0.2)
    assert instant_labels(phones, ["a", "b"], 10, 50.0).tolist() == [1, 1, 0, 0, 0, 2, 2, 2, 3, 3]


def test_speakers_must_be_held_out_and_phones_known():
    shared, mute = corpus(recordings=4), corpus(recordings=4)
    shared.train[0]["speaker"] = "held1"
    with pytest.raises(InputError, match="'held1' is in both"):
        probe(shared)
    mute.train = [item | {"phones": []} for item in mute.train]
    with pytest.raises(InputError, match="with phones"):
        probe(mute)
