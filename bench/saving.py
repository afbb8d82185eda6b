"""Cost of checkpoints: seconds of each part of writing one, beside the steps between two. A case of faults.py.

train.py's `fit` takes a few steps (their median, without the first two) and then saves its checkpoint repeatedly, as
after a validation: Lightning collects it, and codec/checkpoints/save.py writes, syncs, reads back and renames it.
"""

import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from omegaconf import OmegaConf

import train
from bench.common import composed
from bench.witness import witness, witnessed
from codec.checkpoints import lightning_plugin, save

FEW = ["val_every=1000000", "data.workers=0", "logger=csv", "trainer=cpu", "warmup=1", "data.val_clips=1"]
FEW += ["trainer.enable_progress_bar=false"]
FEW += [f"~callbacks.{name}" for name in ("validation", "best", "last", "last_step", "progress")]
EVERY = 1000  # steps between two checkpoints: val_every of conf/train.yaml


def saving(speech: Path, scratch: Path, options: list[str], steps: int, saves: int) -> dict[str, Any]:
    """Medians over `steps` steps and `saves` checkpoints of one kind of run."""
    data = ["dataset=folder", f"dataset.path={speech}", f"run_dir={scratch}", f"max_steps={steps + 3}"]
    cfg = composed(*FEW, *data, *witness(scratch / "steps"), *options)
    OmegaConf.update(cfg, "trainer.enable_checkpointing", False, force_add=True)
    scratch.mkdir(parents=True)
    trainer, _ = train.fit(cfg)
    ends = [at for *_, at in witnessed(scratch / "steps")]
    step = statistics.median(b - a for a, b in pairwise(ends[2:]))
    path, parts = scratch / "checkpoints" / "last.ckpt", []
    for _ in range(saves + 2):  # the first two have less to replace
        seconds: dict[str, float] = {}
        with (
            patch.object(lightning_plugin, "write", timed(seconds, "all", save.write)),
            patch.object(torch, "save", timed(seconds, "write", torch.save)),
            patch.object(os, "fsync", timed(seconds, "fsync", os.fsync)),
            patch.object(save, "damage", timed(seconds, "read back", save.damage)),
        ):
            begin = time.perf_counter()
            trainer.save_checkpoint(path)
        seconds["collect"] = time.perf_counter() - begin - seconds["all"]
        seconds["link, rename"] = seconds.pop("all") - sum(seconds[part] for part in ("write", "fsync", "read back"))
        parts.append(seconds)
    saves_s = [sum(seconds.values()) for seconds in parts[2:]]
    cost = statistics.median(saves_s)
    return {
        "options": options,
        "threads": torch.get_num_threads(),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "step_s": round(step, 4),
        "save_s": round(cost, 3),
        "saves_s": [round(value, 3) for value in saves_s],
        "parts_s": {part: round(statistics.median(s[part] for s in parts[2:]), 4) for part in parts[0]},
        # `last` after every validation; `best` as well, after the best so far
        "share_percent": {n: round(100 * n * cost / (n * cost + EVERY * step), 3) for n in (1, 2)},
        "step_s_at_2_percent": {n: round(n * cost * 0.98 / 0.02 / EVERY, 4) for n in (1, 2)},
    }


def timed(seconds: dict[str, float], part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - begin

    return run
