"""A run that is killed, or asked to leave, and goes on, ends as the run that nobody disturbed: bit for bit."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch

import train
from codec.resume import resume_point
from codec.storage import step_of
from tests.test_checkpoints import same
from tests.test_config import TINY, short

STEPS = 14
# Dropout of codebooks, replaced codes, discriminators and the balancer: all that has state or draws random numbers.
PARTS = ["disc.members.msd.width=4", "quantizer.n_q=3", "quantizer.check_every=2", "quantizer.quantization_rate=0.7"]
PARTS += [f"max_steps={STEPS}", "val_every=3", "~callbacks.validation", "~callbacks.best", "data.workers=0", "warmup=3"]


def small_run(folder: Path, run: Path, *overrides: str):
    options = [o for o in (*TINY, *PARTS, *overrides)]
    return short(folder, run, *options, disc="msd", loss="balancer")


def trained(cfg) -> None:
    """What the process of a run does, without the report, which has nothing to resume."""
    torch.set_num_threads(1)
    train.fit(cfg)


def started(cfg) -> multiprocessing.Process:
    """A process of its own, forked from this one, which saves seconds of imports."""
    process = multiprocessing.get_context("fork").Process(target=trained, args=(cfg,), daemon=False)
    process.start()
    return process


def until(condition, process) -> bool:
    """Wait for something, without a pause; False if the process ended first."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if condition():
            return True
        if not process.is_alive():
            return False
    raise TimeoutError


def state(run: Path) -> dict:
    """Everything in the last checkpoint but the paths of its own folder and the configuration."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["callbacks"] = {k: v for k, v in checkpoint["callbacks"].items() if "ModelCheckpoint" not in k}
    del checkpoint["config"]
    return checkpoint


def differences(a, b, name="") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for key in a for d in differences(a[key], b[key], f"{name}/{key}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for n, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{name}/{n}")]
    return [] if same(a, b) else [name]


@pytest.fixture(scope="module")
def undisturbed(speech_folder, tmp_path_factory) -> dict:
    run = tmp_path_factory.mktemp("whole")
    process = started(small_run(speech_folder, run))
    process.join()
    assert process.exitcode == 0
    return state(run)


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_again_and_again(workers, undisturbed, speech_folder, tmp_path):
    """SIGKILL while a checkpoint is being written, just after one, and at random moments in between."""
    cfg = small_run(speech_folder, tmp_path, f"data.workers={workers}", "ckpt_path=auto")
    folder, rng = tmp_path / "checkpoints", random.Random(workers)
    begun = time.monotonic()
    moments = ["part", "random", "part", "random", "random"]
    for moment in moments:
        before = step_of(resume_point("auto", tmp_path)) if resume_point("auto", tmp_path) else 0
        process = started(cfg)
        if moment == "part":
            (folder / "last.ckpt.part").unlink(missing_ok=True)
            assert until((folder / "last.ckpt.part").exists, process)
        else:  # after some steps of its own
            names = [tmp_path / "csv" / "metrics.csv"]
            assert until(names[0].exists, process)
            time.sleep(rng.uniform(0, 0.6))
        process.kill()
        process.join()
        found = resume_point("auto", tmp_path)
        assert found is None or step_of(found) >= before
        if found and step_of(found) >= STEPS:
            break
    print("killed", time.monotonic() - begun)
    process = started(cfg)
    process.join()
    assert process.exitcode == 0
    assert not differences(undisturbed, state(tmp_path))
