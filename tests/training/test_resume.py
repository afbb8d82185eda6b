"""A run that is killed or preempted and resumed equals the uninterrupted run bit for bit.

KILLS=30 kills a longer run so many times (docs/results/faults.md).
"""

import itertools
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
from codec.checkpoints.load import CheckpointError
from codec.checkpoints.save import step_of
from codec.training.callbacks.preemption import INTERRUPTED, PREEMPTED, Preemption, SlurmPreemption, requeue
from codec.training.callbacks.rng_state import RandomState
from codec.training.resume import resume_point
from codec.training.setup import claimed
from codec.utils.errors import InputError
from tests.helpers.checkpoints import differences, state
from tests.helpers.training import TINY, fit, loader, short, small_task

KILLS = int(os.environ.get("KILLS", 3))
STEPS = 10 * KILLS - 20
# Dropout of codebooks, replaced codes, discriminators and the balancer: all that has state or draws random numbers.
PARTS = ["disc.members.msd.width=4", "disc.members.msd.scales=1", "quantizer.n_q=3", "quantizer.check_every=2"]
PARTS += ["quantizer.quantization_rate=0.7", "segment=0.2", f"max_steps={STEPS}", "val_every=3", "warmup=3"]
PARTS += ["~callbacks.validation", "~callbacks.best", "data.workers=0"]


def small_run(folder: Path, run: Path, *overrides: str, slurm: bool = False):
    options = [*TINY, *PARTS, *overrides]
    if slurm:
        options += ["trainer.accelerator=cpu", "trainer.strategy=auto"]  # ddp's sums, of one process, round otherwise
    return short(folder, run, *options, disc="msd", loss="balancer", trainer="slurm" if slurm else "cpu")


def trained(cfg, group: bool, environment: dict[str, str]) -> None:
    """What the process of a run does, without the report, which has nothing to resume."""
    if group:
        os.setpgid(0, 0)
    if environment:
        os.environ.update(environment)
        rank_zero_only.rank = int(environment["RANK"])  # read from the environment when Lightning is imported
    Path(cfg.run_dir).mkdir(exist_ok=True)
    logging.basicConfig(filename=Path(cfg.run_dir, "train.log"), force=True)  # Hydra's job log
    torch.set_num_threads(1)
    train.fit(cfg)


def started(cfg, group: bool = False, ranks: int = 1) -> list[multiprocessing.Process]:
    """Processes forked from this one, which saves seconds of imports; two train together, as torchrun starts them."""
    facts = {**where(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test"}
    context, processes = multiprocessing.get_context("fork"), []
    for rank in range(ranks):
        environment = facts | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        processes.append(context.Process(target=trained, args=(cfg, group, environment), daemon=False))
        processes[-1].start()
    return processes


def ended(processes: list[multiprocessing.Process]) -> set[int]:
    """Exit codes."""
    for process in processes:
        process.join()
    return {process.exitcode for process in processes}


def where() -> dict[str, str]:
    """Where processes that train together meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


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
    assert ended(started(small_run(speech_folder, run))) == {0}
    return state(run)


def test_killed_again_and_again(undisturbed, speech_folder, tmp_path):
    """SIGKILL after the first step, while a checkpoint is being written, and some time after that; the lives of the run
    have loader processes in turns."""
    checkpoints, log = tmp_path / "checkpoints", tmp_path / "csv" / "metrics.csv"
    rng, steps = random.Random(0), [0]
    for moment, workers in itertools.islice(itertools.cycle((("log", 2), ("writing", 0), ("later", 2))), KILLS):
        for path in (log, *checkpoints.glob("unfinished-*")):
            path.unlink(missing_ok=True)
        (process,) = started(small_run(speech_folder, tmp_path, f"data.workers={workers}", "ckpt_path=auto"))
        begun = log.exists if moment == "log" else lambda: any(checkpoints.glob("unfinished-last.ckpt-*"))
        assert until(begun, process)
        time.sleep(0.0 if moment == "writing" else rng.uniform(0, 0.3))
        process.kill()
        process.join()
        found = resume_point("auto", tmp_path)
        steps.append(step_of(found) if found else 0)
        if steps[-1] == STEPS:
            break
    assert steps == sorted(steps)
    assert ended(started(small_run(speech_folder, tmp_path, "ckpt_path=auto"))) == {0}
    assert not differences(undisturbed, state(tmp_path))


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Stands for SLURM's program -> its calls, one a line, written a while after each began."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    calls.touch()
    (programs / "scontrol").write_text(f'#!/bin/sh\nsleep 0.3\necho "$@" >> {calls}\n')
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return calls


@pytest.fixture
def job(scontrol, monkeypatch):
    """A batch job of SLURM with one process."""
    facts = {"JOB_ID": "1234", "JOB_NAME": "codec", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1"}
    for name, value in {**facts, "PROCID": "0", "LOCALID": "0", "NODEID": "0", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    for name, value in where().items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("job")
def test_a_signal_saves_the_step_and_exits(undisturbed, speech_folder, tmp_path, scontrol):
    """SIGUSR1 to the process of a SLURM job requeues it; SIGTERM to its process group, as schedulers send it to data
    loaders too, does not. The same command starts, resumes and ends."""
    run = tmp_path / "run"
    log, cfg = run / "csv" / "metrics.csv", small_run(speech_folder, run, "data.workers=2", slurm=True)
    for number, send in ((signal.SIGUSR1, os.kill), (signal.SIGTERM, os.killpg)):
        before = step_of(resume_point("auto", run)) if resume_point("auto", run) else 0
        log.unlink(missing_ok=True)
        (process,) = started(cfg, group=True)
        assert until(lambda: log.exists() and len(log.read_text().splitlines()) > 1, process)
        send(process.pid, number)
        assert ended([process]) == {PREEMPTED}
        step = step_of(run / "checkpoints" / "last.ckpt")
        assert before < step < STEPS
        assert f"{number.name}: step {step} " in (run / "train.log").read_text()
        assert scontrol.read_text() == "requeue 1234\n"
    assert ended(started(cfg)) == {0}
    assert not differences(undisturbed, state(run))


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("case", ["array", "interactive", "no job", "refused", "missing", "silent"])
def test_requeueing(case, scontrol, tmp_path, monkeypatch, caplog):
    """Array jobs by task, interactive ones not at all; a job that cannot be requeued is one warning."""
    facts = {"interactive": {"SLURM_JOB_NAME": "interactive"}, "no job": {"SLURM_JOB_ID": ""}, "missing": {"PATH": ""}}
    facts["array"] = {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3"}
    for name, value in facts.get(case, {}).items():
        monkeypatch.setenv(name, value)
    if case in ("refused", "silent"):
        act = "exec sleep 2" if case == "silent" else "echo 'Access denied\nor so' >&2; exit 1"
        (tmp_path / "bin" / "scontrol").write_text(f"#!/bin/sh\n{act}")
    monkeypatch.setattr("codec.training.callbacks.preemption.TIMEOUT", 0.2 if case == "silent" else 10)
    assert requeue() == (case == "array")
    assert scontrol.read_text() == ("requeue 77_3\n" if case == "array" else "")
    if case not in ("refused", "missing", "silent"):
        assert not caplog.messages
    else:
        (message,) = caplog.messages
        assert "\n" not in message
        assert "job 1234" in message
        assert case != "refused" or "Access denied" in message


@pytest.mark.usefixtures("job")
def test_lightnings_own_requeueing_is_off(tmp_path):
    """It would save half of a step."""
    found = []

    class Look(lightning.Callback):
        def on_fit_start(self, trainer, task):  # before Lightning installs its handlers
            found.append(trainer._accelerator_connector.cluster_environment.auto_requeue)

        def on_train_start(self, trainer, task):  # and after
            found.append(signal.getsignal(signal.SIGUSR1))

    fit(small_task(members=()), 1, tmp_path, [Look(), SlurmPreemption(str(tmp_path / "last.ckpt"), str(tmp_path))])
    assert found == [False, signal.SIG_DFL]


class Send(lightning.Callback):
    """A signal to this process in a step; the steps in which validation ends."""

    def __init__(self, number: signal.Signals, step: int):
        self.number, self.step, self.validated = number, step, []

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_end(self, trainer, *_):
        self.validated.append(trainer.global_step)


def test_an_earlier_handler_of_the_signal_decides(tmp_path):
    """As submitit's, which requeues the job, after the step has been saved."""
    calls, last = [], tmp_path / "last.ckpt"

    def listener(number, frame):
        calls.append((number, step_of(last)))

    old = signal.signal(signal.SIGUSR1, listener)
    try:
        fit(small_task(members=()), 3, tmp_path, [Send(signal.SIGUSR1, 1), Preemption(str(last), str(tmp_path))])
        assert signal.getsignal(signal.SIGUSR1) is listener
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert calls == [(signal.SIGUSR1, 2)]


def test_ctrl_c_saves_the_step(tmp_path):
    last = tmp_path / "last.ckpt"
    with pytest.raises(SystemExit) as left:
        fit(small_task(members=()), 9, tmp_path, [Send(signal.SIGINT, 3), Preemption(str(last), str(tmp_path))])
    assert (left.value.code, step_of(last)) == (INTERRUPTED, 4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def waiting(second: signal.Signals, apart: float) -> None:
    """A run whose data does not come gets two signals."""
    preemption = Preemption("", "")
    preemption._receive(signal.SIGTERM, None)
    preemption.since -= apart
    preemption._receive(second, None)


@pytest.mark.parametrize(
    ("second", "apart", "code"),
    [("SIGTERM", 9, -signal.SIGTERM), ("SIGINT", 9, -signal.SIGINT), ("SIGTERM", 0, 0), ("SIGUSR1", 9, 0)],
)
def test_a_second_signal_ends_at_once(second, apart, code):
    """But not the same one passed on by torchrun, nor SLURM's early one."""
    process = multiprocessing.get_context("fork").Process(target=waiting, args=(signal.Signals[second], apart))
    process.start()
    assert ended([process]) == {code}


def holding(folder: Path) -> None:
    with claimed(folder):
        time.sleep(60)


def test_a_run_folder_has_one_process_at_a_time(tmp_path):
    """A killed process has it no longer, whoever inherited its files."""
    process = multiprocessing.get_context("fork").Process(target=holding, args=(tmp_path,))
    process.start()
    assert until(lambda: (tmp_path / ".lock").exists() and (tmp_path / ".lock").read_text(), process)
    with pytest.raises(InputError, match=f"process {process.pid}"), claimed(tmp_path):
        pass
    process.kill()
    process.join()
    with claimed(tmp_path), claimed(tmp_path / "other"):
        pass


def test_a_finished_run_is_not_overwritten(tmp_path):
    assert resume_point(None, tmp_path) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "previous.ckpt").touch()
    with pytest.raises(CheckpointError, match="ckpt_path=last"):
        resume_point(None, tmp_path)


def test_a_validation_that_is_due_comes_first(tmp_path):
    """A resumed run would not make up for it."""
    send, last = Send(signal.SIGTERM, 2), tmp_path / "last.ckpt"
    validation = dict(val=loader(), val_check_interval=3, check_val_every_n_epoch=None, limit_val_batches=1)
    with pytest.raises(SystemExit) as left:
        fit(small_task(members=()), 9, tmp_path, [send, Preemption(str(last), str(tmp_path))], **validation)
    assert (left.value.code, send.validated, step_of(last)) == (PREEMPTED, [3], 4)


def test_random_numbers_of_every_kind_continue(tmp_path):
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


def test_two_ranks_are_preempted_together_and_resume(speech_folder, tmp_path, scontrol, monkeypatch):
    """A signal to the second rank alone. The first requeues the job and writes the checkpoint; the second exits after
    it, as srun would end both. Each has random numbers of its own."""
    ddp = ["trainer.devices=2", "+trainer.strategy=ddp", "max_steps=6", "val_every=10"]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert ended(started(small_run(speech_folder, whole, *ddp), ranks=2)) == {0}
    monkeypatch.setenv("SLURM_JOB_ID", "1234")
    monkeypatch.setenv("SLURM_JOB_NAME", "codec")
    leave = "callbacks.preemption._target_=codec.training.callbacks.preemption.SlurmPreemption"
    processes = started(small_run(speech_folder, parted, *ddp, "ckpt_path=auto", leave), ranks=2)
    log = parted / "csv" / "metrics.csv"
    assert until(lambda: log.exists() and len(log.read_text().splitlines()) > 1, processes[1])
    os.kill(processes[1].pid, signal.SIGUSR1)
    processes[1].join()
    assert scontrol.read_text() == "requeue 1234\n"
    assert ended(processes) == {PREEMPTED}
    assert 0 < step_of(parted / "checkpoints" / "last.ckpt") < 6
    assert ended(started(small_run(speech_folder, parted, *ddp, "ckpt_path=last"), ranks=2)) == {0}
    assert not differences(state(whole), state(parted))
    first, second = state(whole)["callbacks"]["RandomState"]["ranks"]
    assert not torch.equal(first["cpu"], second["cpu"])
    assert len(list((whole / "csv").glob("metrics*"))) == 1
    assert len(list((parted / "csv").glob("metrics*"))) == 2
