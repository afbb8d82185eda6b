"""The measuring scripts follow the code: each is imported, and short cases run."""

import importlib

import pytest
import torch

from bench import flow
from bench.train_step import OnePass, Usual
from tests.helpers.programs import ROOT
from tests.helpers.training import small_task, tone_batch


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "bench").glob("[!_]*.py")))
def test_every_script_finds_what_it_measures(name):
    assert "from tests" not in (ROOT / "bench" / f"{name}.py").read_text()
    importlib.import_module(f"bench.{name}")


def test_flow_cases_run():
    flow.training("tiny", 1, 0.5)()
    inpainted = flow.sampling("tiny", 12.5, 0.5)(steps=1)
    assert inpainted.shape == (1, 32, 6)
    assert bool(torch.isfinite(inpainted).all())


@pytest.mark.parametrize("make", [OnePass, lambda task: Usual(task, False), lambda task: Usual(task, True)])
def test_training_steps_reach_all_networks(make):
    task = small_task().train()
    make(task)(tone_batch(2, 1024))
    assert all(p.grad is not None for p in task.parameters())
