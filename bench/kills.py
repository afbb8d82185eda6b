"""A small run of train.py that is killed again and again, goes on each time, and is compared with one left alone.

A case of bench/faults.py. Each life of the run is a process of its own that does what ``python train.py`` does (forked
from one that has imported everything, which spares 10 seconds). The moments are drawn evenly over the time of the run,
which is counted in steps at the pace of the life before: the machine may be slower now than it was for the undisturbed
run. The clock stands still until a life has done a step. Of the kills at chosen moments one half comes
while a life starts, the other a moment after a checkpoint has begun to be written (``last.ckpt.part`` is there).
"""

import contextlib
import multiprocessing
import os
import random
import statistics
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from codec.checkpoints.save import damage, step_of
from codec.training.resume import resume_point
from tests.helpers.checkpoints import differences, state
from tests.helpers.programs import call
from tests.helpers.training import CHOICES, SHORT, TINY

# Dropout of codebooks, replaced codes, discriminators and the balancer: all that has state or draws random numbers.
PARTS = ["disc=msd", "disc.members.msd.width=4", "loss=balancer", "quantizer.n_q=3", "quantizer.check_every=2"]
PARTS += ["quantizer.quantization_rate=0.7", "warmup=3", "report.audio=0"]


class Witness(Callback):
    """A line for every step that is done: its number, a checksum of its batch, and when. It survives a kill."""

    def __init__(self, path: str):
        self.path = path
        self.file = -1

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch: dict, batch_idx: int) -> None:
        if trainer.is_global_zero:
            line = f"{trainer.global_step} {zlib.crc32(batch['wav'].numpy().tobytes())} {time.monotonic()}\n"
            os.write(self.file, line.encode())


def witnessed(path: Path) -> list[tuple[int, int, float]]:
    """(step, checksum, seconds) of each line that is complete."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [(int(step), int(checksum), float(at)) for step, checksum, at in map(str.split, lines)]


def per_step(lines: list[tuple[int, int, float]]) -> float:
    """Seconds from one step to the next, validation and checkpoints included; 0 where too few were done to tell."""
    return (lines[-1][2] - lines[0][2]) / (len(lines) - 1) if len(lines) > 5 else 0.0


def witness(path: Path) -> list[str]:
    """Overrides that put a Witness into a run."""
    return ["+callbacks.witness._target_=bench.kills.Witness", f"+callbacks.witness.path={path}"]


def started(run: Path, *overrides: str) -> multiprocessing.Process:
    """`python train.py ... hydra.run.dir=RUN ckpt_path=auto`; its Witness writes RUN/steps."""
    run.mkdir(parents=True, exist_ok=True)
    arguments = [*overrides, *witness(run / "steps"), f"hydra.run.dir={run}", "ckpt_path=auto"]
    process = multiprocessing.get_context("fork").Process(target=_life, args=(run, arguments), daemon=False)
    process.start()
    return process


def _life(run: Path, arguments: list[str]) -> None:
    torch.set_num_threads(1)
    with open(run / "output", "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if code := call("train.py", *arguments):
        raise SystemExit(code)


def until(condition: Callable[[], Any], process: multiprocessing.Process) -> bool:
    """Wait for something; False if the process ended first."""
    while not condition():
        if not process.is_alive():
            return False
        time.sleep(0.0005)
    return True


def unfinished(run: Path, since: float) -> bool:
    """Whether a checkpoint is being written that was begun after a time of the clock: an earlier kill may leave one."""
    for name in ("last", "best"):
        with contextlib.suppress(FileNotFoundError):
            if (run / "checkpoints" / f"{name}.ckpt.part").stat().st_mtime >= since:
                return True
    return False


def kills(speech: Path, scratch: Path, workers: int, count: int, steps: int, every: int) -> dict[str, Any]:
    """What `count` random kills, and half as many at chosen moments, cost and change."""
    choices = [f"{group}={option}" for group, option in {**CHOICES, "disc": "msd"}.items()]
    options = [*choices, *SHORT, *TINY, *PARTS, "dataset=folder", f"dataset.path={speech}", "dataset.holdout=0.25"]
    options += [f"max_steps={steps}", f"val_every={every}", f"data.workers={workers}"]
    whole, run = scratch / f"whole{workers}", scratch / f"killed{workers}"
    begin = time.monotonic()
    process = started(whole, *options)
    until(lambda: witnessed(whole / "steps"), process)
    first = time.monotonic()
    process.join()
    starting, pace = first - begin, per_step(witnessed(whole / "steps"))
    if process.exitcode:
        raise RuntimeError(f"the undisturbed run failed: {(whole / 'output').read_text()[-2000:]}")

    rng = random.Random(workers)
    plan = ["random"] * count + ["writing"] * (count // 4) + ["starting"] * (count // 4)
    rng.shuffle(plan)
    moments = iter(sorted(rng.uniform(0, steps) for _ in range(count)))
    clock, rows = 0.0, []
    for how in plan:
        before, since = len(witnessed(run / "steps")), time.time()
        process = started(run, *options)
        if how == "starting":
            time.sleep(rng.uniform(0, starting))
        elif until(lambda: len(witnessed(run / "steps")) > before, process):  # noqa: B023
            if how == "random":
                moment = next(moments)
                time.sleep((moment - clock) * pace)
                clock = moment
            else:
                until(lambda: unfinished(run, since), process)  # noqa: B023
                time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was done before
            break
        done = witnessed(run / "steps")
        pace = per_step(done[before:]) or pace
        found = resume_point("auto", run)
        row = {"how": how, "step": done[-1][0] if len(done) > before else None, "back": step_of(found) if found else 0}
        row |= {"part": unfinished(run, since), "previous": bool(found and "previous" in found)}
        rows.append(row | {"damaged": bool(found and damage(found))})
    process = started(run, *options)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the run did not go on: {(run / 'output').read_text()[-2000:]}")
    expected = {step: checksum for step, checksum, _ in witnessed(whole / "steps")}
    lines = witnessed(run / "steps")
    lost = [row["step"] - row["back"] for row in rows if row["step"] is not None]
    unlike = {name: differences(state(whole, name), state(run, name)) for name in ("last", "best")}
    return {
        "workers": workers,
        "steps": steps,
        "val_every": every,
        "undisturbed_s_per_step": round(per_step(witnessed(whole / "steps")), 3),
        "kills": {how: sum(row["how"] == how for row in rows) for how in ("random", "writing", "starting")},
        "killed_while_writing": sum(row["part"] for row in rows),
        "went_on_from_previous": sum(row["previous"] for row in rows),
        "lost_steps_median": statistics.median(lost),
        "lost_steps_max": max(lost),
        "lost_steps": lost,
        "steps_taken": len(lines),
        "equal": not any(unlike.values()),
        "unlike": unlike,
        "compared": sum(map(torch.is_tensor, _leaves(state(whole)))),
        "batches_unlike": sum(expected[step] != checksum for step, checksum, _ in lines),
    }


def _leaves(content: Any) -> list[Any]:
    if isinstance(content, dict | list | tuple):
        parts = content.values() if isinstance(content, dict) else content
        return [leaf for part in parts for leaf in _leaves(part)]
    return [content]
