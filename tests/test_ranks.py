"""Processes that train together under Lightning's plain ddp: equal models, the gradients of one, each draw once."""

import multiprocessing
import socket
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.ranks_task import EACH, process, train

ROOT = Path(__file__).parents[1]
STEPS = 12


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def both(speech: Path, out: Path, **options) -> list[dict]:
    """What two processes saw."""
    multiprocessing.set_forkserver_preload(["lightning", "tests.ranks_task"])
    arguments = (free_port(), str(speech), str(out), options)
    mp.start_processes(process, arguments, nprocs=2, start_method="forkserver")
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="module")
def ranks(speech_folder, tmp_path_factory) -> list[dict]:
    """Discriminators from the third step on, quantizer dropout, codes that die; two loader processes each."""
    return both(speech_folder, tmp_path_factory.mktemp("ranks"), steps=STEPS, workers=2)


def test_models_codebooks_and_averages_are_equal_on_every_rank(ranks):
    first, second = ranks
    for part in ("state", "ema"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), name
    assert any(name.startswith("discriminators.") for name in first["state"])
    assert first["steps"] == second["steps"] == STEPS


def test_initialisation_and_replaced_codes_are_the_same_after_every_step(ranks):
    first, second = (rank["codebooks"] for rank in ranks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    jumps = [float((b - a).norm(dim=-1).max()) for a, b in pairwise(first)]
    assert max(jumps) > 5 * sorted(jumps)[len(jumps) // 2]  # some code was replaced, the others only moved


def test_random_numbers_differ_between_ranks(ranks):
    first, second = (rank["draws"] for rank in ranks)
    assert not set(first) & set(second)


def test_no_draw_comes_twice_and_together_they_are_those_of_one_process(ranks, speech_folder):
    alone = train(speech_folder, 6)["crops"]
    assert len(set(alone)) == len(alone) == 6 * 2 * EACH  # within one epoch: 9 files of 3 slots
    assert set(ranks[0]["crops"][: 6 * EACH]) | set(ranks[1]["crops"][: 6 * EACH]) == set(alone)


def test_gradients_are_those_of_one_process_with_the_whole_batch(speech_folder, tmp_path):
    together = both(speech_folder, tmp_path, steps=1, given=True)
    alone = train(speech_folder, 1, given=True)
    assert alone["gradients"].keys() == together[0]["gradients"].keys()
    assert any(name.startswith("discriminators.") for name in alone["gradients"])
    for name, value in alone["gradients"].items():
        assert torch.equal(together[0]["gradients"][name], together[1]["gradients"][name])
        torch.testing.assert_close(together[0]["gradients"][name], value, atol=1e-5, rtol=1e-4)
    for name, value in alone["state"].items():
        if ".quantizer." in name:
            torch.testing.assert_close(together[0]["state"][name], value, atol=1e-5, rtol=1e-4)
