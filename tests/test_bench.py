"""Measuring scripts go on with the code: each can be imported, and what one measures can be run."""

import importlib

import pytest
import torch

from bench import flow
from tests.helpers.programs import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "bench").glob("[!_]*.py")))
def test_every_script_finds_what_it_measures(name):
    importlib.import_module(f"bench.{name}")


def test_a_flow_models_step_and_sampling_run():
    flow.training("tiny", 1, 0.5)()
    filled = flow.sampling("tiny", 12.5, 0.5)(steps=1)
    assert filled.shape == (1, 32, 6)
    assert bool(torch.isfinite(filled).all())
