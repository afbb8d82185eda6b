"""A small training run that is killed again and again and resumed, compared with one that was not: a case of faults.py.

Each life of the run is a process that does what ``python train.py`` does, forked from one that has imported everything.
The moments are drawn evenly over the time of the run, counted in steps at the pace of the life before; the clock stands
still until a life has done a step. Of the kills at chosen moments one half comes while a life starts, the other just
after a checkpoint has begun to be written (``unfinished-last.ckpt-*`` exists).
"""

import contextlib
import multiprocessing
import os
import random
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from codec.checkpoints.save import damage, step_of
from codec.training.resume import resume_point

# Small, with all that has state or draws random numbers: dropout and replacement of codes, discriminators, balancer.
SMALL = ["encoder=seanet_small", "decoder=seanet_small", "disc=msd", "logger=csv", "trainer=cpu", "loss=balancer"]
SMALL += ["channels=4", "latent_dim=16", "batch_size=2", "segment=0.52", "warmup=3", "disc.members.msd.width=4"]
SMALL += ["quantizer.codebook_size=16", "quantizer.kmeans_iters=2", "quantizer.n_q=3", "quantizer.check_every=2"]
SMALL += ["quantizer.quantization_rate=0.7", "data.val_clips=1", "data.val_seconds=0.6", "report.clips=1"]
SMALL += ["report.seconds=0.6", "report.audio=0", "callbacks.validation.metrics=[mel_distance]"]
SMALL += ["~callbacks.progress", "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]


class Witness(Callback):
    """Writes a line for every finished step, at once: its number, a checksum of its batch, and the time."""

    def __init__(self, path: str):
        self.path, self.file = path, -1

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch: dict, batch_idx: int) -> None:
        if trainer.is_global_zero:
            line = f"{trainer.global_step} {zlib.crc32(batch['wav'].numpy().tobytes())} {time.monotonic()}\n"
            os.write(self.file, line.encode())


def witness(path: Path) -> list[str]:
    """Overrides that put a Witness into a run."""
    return ["+callbacks.witness._target_=bench.kills.Witness", f"+callbacks.witness.path={path}"]


def witnessed(path: Path) -> list[tuple[int, int, float]]:
    """(step, checksum, seconds) of each complete line."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [(int(step), int(checksum), float(at)) for step, checksum, at in map(str.split, lines)]


def per_step(lines: list[tuple[int, int, float]]) -> float:
    """Seconds per step, validation and checkpoints included; 0 for fewer than 6 steps."""
    return (lines[-1][2] - lines[0][2]) / (len(lines) - 1) if len(lines) > 5 else 0.0


def started(run: Path, *overrides: str) -> multiprocessing.Process:
    """`python train.py ... hydra.run.dir=RUN ckpt_path=auto`; its Witness writes RUN/steps."""
    run.mkdir(parents=True, exist_ok=True)
    arguments = [*overrides, *witness(run / "steps"), f"hydra.run.dir={run}", "ckpt_path=auto"]
    process = multiprocessing.get_context("fork").Process(target=_life, args=(run, arguments), daemon=False)
    process.start()
    return process


def _life(run: Path, arguments: list[str]) -> None:
    import train

    torch.set_num_threads(1)
    with open(run / "output", "a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ["HYDRA_MAIN_MODULE"] = "__main__"  # conf/ is then beside train.py
    sys.argv = ["train.py", *arguments]
    train.main()


def until(condition: Callable[[], Any], process: multiprocessing.Process) -> bool:
    """Wait for a condition; False if the process ended first."""
    while not condition():
        if not process.is_alive():
            return False
        time.sleep(0.0005)
    return True


def unfinished(run: Path, since: float) -> bool:
    """Whether a checkpoint that was begun after ``since`` is being written."""
    for file in (run / "checkpoints").glob("unfinished-*.ckpt-*"):
        with contextlib.suppress(FileNotFoundError):
            if file.stat().st_mtime >= since:
                return True
    return False


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, tensor or plain value) of nested containers."""
    if isinstance(value, dict | list | tuple):
        yield path, len(value)
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}/{key}")
    else:
        yield path, value


def content(run: Path, name: str) -> dict[str, Any]:
    """Everything in a checkpoint but the configuration and the paths of its run."""
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    checkpoint["callbacks"] = {k: v for k, v in checkpoint["callbacks"].items() if "ModelCheckpoint" not in k}
    del checkpoint["config"]
    return dict(leaves(checkpoint))


def unlike(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Paths at which two checkpoints are not equal to the bit."""
    same = lambda x, y: torch.equal(x, y) if torch.is_tensor(x) and torch.is_tensor(y) else x == y  # noqa: E731
    return sorted(key for key in a.keys() | b.keys() if key not in a or key not in b or not same(a[key], b[key]))


def finished(run: Path, *options: str) -> None:
    process = started(run, *options)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the run failed: {(run / 'output').read_text()[-2000:]}")


def killed(
    run: Path, options: list[str], plan: list[str], rng: random.Random, starting: float, pace: float, steps: int
):
    """Start and kill the run as planned -> a row for each kill."""
    moments, clock, rows = iter(sorted(rng.uniform(0, steps) for how in plan if how == "random")), 0.0, []
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
        if process.exitcode == 0:  # it had finished
            break
        done = witnessed(run / "steps")
        pace = per_step(done[before:]) or pace
        found = resume_point("auto", run)
        row = {"how": how, "step": done[-1][0] if len(done) > before else None, "back": step_of(found) if found else 0}
        row |= {"part": unfinished(run, since), "previous": bool(found and "previous" in found)}
        rows.append(row | {"damaged": bool(found and damage(found))})
    return rows


def kills(speech: Path, scratch: Path, workers: int, count: int, steps: int, every: int) -> dict[str, Any]:
    """Cost and effect of `count` random kills, and half as many at chosen moments."""
    options = [*SMALL, "dataset=folder", f"dataset.path={speech}", "dataset.holdout=0.25", f"max_steps={steps}"]
    options += [f"val_every={every}", f"data.workers={workers}"]
    whole, run = scratch / f"whole{workers}", scratch / f"killed{workers}"
    begin = time.monotonic()
    finished(whole, *options)
    undisturbed = witnessed(whole / "steps")
    starting, pace = undisturbed[0][2] - begin, per_step(undisturbed)
    rng = random.Random(workers)
    plan = ["random"] * count + ["writing"] * (count // 4) + ["starting"] * (count // 4)
    rng.shuffle(plan)
    rows = killed(run, options, plan, rng, starting, pace, steps)
    finished(run, *options)
    expected, lines = {step: checksum for step, checksum, _ in undisturbed}, witnessed(run / "steps")
    lost = [row["step"] - row["back"] for row in rows if row["step"] is not None]
    differences = {name: unlike(content(whole, name), content(run, name)) for name in ("last", "best")}
    return {
        "workers": workers,
        "steps": steps,
        "val_every": every,
        "undisturbed_s_per_step": round(pace, 3),
        "kills": {how: sum(row["how"] == how for row in rows) for how in ("random", "writing", "starting")},
        "killed_while_writing": sum(row["part"] for row in rows),
        "resumed_from_previous": sum(row["previous"] for row in rows),
        "lost_steps_median": statistics.median(lost),
        "lost_steps_max": max(lost),
        "steps_taken": len(lines),
        "equal": not any(differences.values()),
        "unlike": differences,
        "compared": sum(map(torch.is_tensor, content(whole, "last").values())),
        "batches_unlike": sum(expected[step] != checksum for step, checksum, _ in lines),
    }
