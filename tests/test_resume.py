"""A run that is killed, or asked to leave, and goes on, ends as the run that nobody disturbed: bit for bit."""

import logging
import multiprocessing
import os
import random
import signal
import socket
import time
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import rank_zero_only

import train
from codec.random_state import RandomState
from codec.resume import resume_point
from codec.saving import LEFT, LeaveOnSignal
from codec.storage import step_of
from tests.checkpoints import differences, state
from tests.test_config import TINY, short
from tests.test_task import fit, small_task

STEPS = 14
# Dropout of codebooks, replaced codes, discriminators and the balancer: all that has state or draws random numbers.
PARTS = ["disc.members.msd.width=4", "quantizer.n_q=3", "quantizer.check_every=2", "quantizer.quantization_rate=0.7"]
PARTS += [f"max_steps={STEPS}", "val_every=3", "~callbacks.validation", "~callbacks.best", "data.workers=0", "warmup=3"]


def small_run(folder: Path, run: Path, *overrides: str):
    options = [*TINY, *PARTS, *overrides]
    return short(folder, run, *options, disc="msd", loss="balancer")


def trained(cfg, group: bool) -> None:
    """What the process of a run does, without the report, which has nothing to resume."""
    if group:
        os.setpgid(0, 0)
    Path(cfg.run_dir).mkdir(exist_ok=True)
    logging.basicConfig(filename=Path(cfg.run_dir, "train.log"), force=True)  # Hydra's job log
    torch.set_num_threads(1)
    train.fit(cfg)


def started(cfg, group: bool = False) -> multiprocessing.Process:
    """A process of its own, forked from this one, which saves seconds of imports; with a process group of its own."""
    process = multiprocessing.get_context("fork").Process(target=trained, args=(cfg, group), daemon=False)
    process.start()
    return process


def started_together(cfg) -> list[multiprocessing.Process]:
    """Two processes that train together, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    where |= {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    context = multiprocessing.get_context("fork")
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [context.Process(target=joined, args=(cfg, where | rank), daemon=False) for rank in ranks]
    for process in processes:
        process.start()
    return processes


def joined(cfg, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    rank_zero_only.rank = int(environment["RANK"])  # read from the environment when Lightning is imported
    trained(cfg, group=False)


def until(condition, process) -> bool:
    """Wait for something; False if the process ended first."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if condition():
            return True
        if not process.is_alive():
            return False
        time.sleep(0.0005)
    raise TimeoutError


@pytest.fixture(scope="module")
def undisturbed(speech_folder, tmp_path_factory) -> dict:
    run = tmp_path_factory.mktemp("whole")
    process = started(small_run(speech_folder, run))
    process.join()
    assert process.exitcode == 0
    return state(run)


@pytest.mark.parametrize(("workers", "moments"), [(0, "part later log later"), (2, "log part later")])
def test_killed_again_and_again(workers, moments, undisturbed, speech_folder, tmp_path):
    """SIGKILL while a checkpoint is being written, some time after that, and some time after the first step."""
    cfg = small_run(speech_folder, tmp_path, f"data.workers={workers}", "ckpt_path=auto")
    part, log = tmp_path / "checkpoints" / "last.ckpt.part", tmp_path / "csv" / "metrics.csv"
    rng, steps = random.Random(workers), [0]
    for moment in moments.split():
        for path in (part, log):
            path.unlink(missing_ok=True)
        process = started(cfg)
        assert until((log if moment == "log" else part).exists, process)
        time.sleep(0.0 if moment == "part" else rng.uniform(0, 0.5))
        process.kill()
        process.join()
        found = resume_point("auto", tmp_path)
        steps.append(step_of(found) if found else 0)
        if steps[-1] == STEPS:
            break
    assert steps == sorted(steps)
    process = started(cfg)
    process.join()
    assert process.exitcode == 0
    assert not differences(undisturbed, state(tmp_path))


def test_a_signal_saves_the_step_and_leaves(undisturbed, speech_folder, tmp_path):
    """SIGUSR1 to the process, and SIGTERM to its whole group, loaders included, as schedulers send it."""
    log = tmp_path / "csv" / "metrics.csv"
    for number, send in ((signal.SIGUSR1, os.kill), (signal.SIGTERM, os.killpg)):
        before = step_of(resume_point("auto", tmp_path)) if resume_point("auto", tmp_path) else 0
        log.unlink(missing_ok=True)
        process = started(small_run(speech_folder, tmp_path, "data.workers=2", "ckpt_path=auto"), group=True)
        assert until(lambda: log.exists() and len(log.read_text().splitlines()) > 1, process)
        send(process.pid, number)
        sent = time.monotonic()
        process.join()
        assert process.exitcode == LEFT
        assert time.monotonic() - sent < 20
        step = step_of(tmp_path / "checkpoints" / "last.ckpt")
        assert before < step < STEPS
        sentence = f"{number.name}: step {step} is saved; the same command with hydra.run.dir={tmp_path} ckpt_path=last"
        assert sentence in (tmp_path / "train.log").read_text()
    process = started(small_run(speech_folder, tmp_path, "ckpt_path=last"))
    process.join()
    assert process.exitcode == 0
    assert not differences(undisturbed, state(tmp_path))


def test_whoever_listened_before_decides(speech_folder, tmp_path):
    """As submitit does: its handler puts the job back in the queue, after the step has been saved."""
    heard = []

    class Send(lightning.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 1:
                os.kill(os.getpid(), signal.SIGUSR1)

    def listener(number, frame):
        heard.append((number, step_of(tmp_path / "last.ckpt")))

    old = signal.signal(signal.SIGUSR1, listener)
    try:
        fit(small_task(members=()), 4, tmp_path, [Send(), LeaveOnSignal(str(tmp_path / "last.ckpt"), str(tmp_path))])
        assert signal.getsignal(signal.SIGUSR1) is listener
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert heard == [(signal.SIGUSR1, 2)]


def test_random_numbers_of_every_kind_go_on(tmp_path):
    def drawn():
        return random.random(), random.gauss(), np.random.rand(), np.random.randn(), float(torch.rand(()))  # noqa: NPY002

    drawn()
    torch.save(RandomState().state_dict(), tmp_path / "state.pt")
    expected = drawn()
    for saved in (torch.load(tmp_path / "state.pt", weights_only=True), {"cpu": torch.get_rng_state()}):
        callback = RandomState()
        callback.load_state_dict(saved)
        callback.on_train_batch_start()
        assert "ranks" not in saved or drawn() == expected  # older checkpoints know torch alone


def test_two_processes_leave_together_and_go_on(speech_folder, tmp_path):
    """A signal to the second alone; each has random numbers of its own, and the first alone writes."""
    ddp = ["trainer.devices=2", "+trainer.strategy=ddp", "max_steps=6", "val_every=10"]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    processes = started_together(small_run(speech_folder, whole, *ddp))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    processes = started_together(small_run(speech_folder, parted, *ddp, "ckpt_path=auto"))
    log = parted / "csv" / "metrics.csv"
    assert until(lambda: log.exists() and len(log.read_text().splitlines()) > 1, processes[1])
    os.kill(processes[1].pid, signal.SIGUSR1)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [LEFT, LEFT]
    assert 0 < step_of(parted / "checkpoints" / "last.ckpt") < 6
    processes = started_together(small_run(speech_folder, parted, *ddp, "ckpt_path=last"))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert not differences(state(whole), state(parted))
    first, second = state(whole)["callbacks"]["RandomState"]["ranks"]
    assert not torch.equal(first["cpu"], second["cpu"])
    assert len(list((whole / "csv").glob("metrics*"))) == 1
    assert len(list((parted / "csv").glob("metrics*"))) == 2
