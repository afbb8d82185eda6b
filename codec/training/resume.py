"""Resuming: find the checkpoint to resume from, and check that it is intact and matches the model."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from codec.checkpoints.load import CheckpointError, load_checkpoint, load_weights
from codec.checkpoints.renamed import is_older
from codec.checkpoints.save import LAST, PREVIOUS, damage, step_of
from codec.utils.distributed import world_size

log = logging.getLogger(__name__)


def resume_point(ckpt_path: str | None, run_dir: str | Path) -> str | None:
    """Path of the intact checkpoint to resume from, or None to start from step 0.

    ``ckpt_path`` is a file, a run folder, ``last`` (the newest in ``run_dir``), ``auto`` (``last`` if it exists) or
    None. If ``last.ckpt`` is damaged or missing, ``previous.ckpt`` is used, with a warning. Raises CheckpointError if
    no intact checkpoint is found, or if ``ckpt_path`` is None and ``run_dir`` holds the checkpoints of a run.
    """
    checkpoints = Path(run_dir, "checkpoints")
    begun = any((checkpoints / name).is_file() for name in (LAST, PREVIOUS))
    if not ckpt_path:
        if begun:
            raise CheckpointError(
                f"{run_dir} holds a run already, which this one would overwrite: resume it with ckpt_path=last, or "
                "name another folder (hydra.run.dir=DIR)"
            )
        return None
    if ckpt_path in ("last", "auto"):
        if not begun:
            if ckpt_path == "auto":
                return None
            raise CheckpointError(
                f"ckpt_path=last, but there is no checkpoint in {checkpoints}: name the folder of the run to "
                "resume (hydra.run.dir=DIR), or leave ckpt_path out to start"
            )
        return _intact(checkpoints / LAST)
    path = Path(ckpt_path)
    return _intact(path / "checkpoints" / LAST if path.is_dir() else path)


def check_same_step(path: str | None) -> None:
    """Raise CheckpointError on all ranks if they would resume from different steps (a lagging network file system)."""
    if world_size() == 1:
        return
    steps = [0] * world_size()
    dist.all_gather_object(steps, step_of(path) if path else 0)
    if other := next((rank for rank, step in enumerate(steps) if step != steps[0]), None):
        raise CheckpointError(
            f"process {other} would resume from step {steps[other]}, process 0 from step {steps[0]}: they see "
            "different files, as on a network file system that lags. Start again, or name the checkpoint: "
            "ckpt_path=PATH"
        )


def older_parts(path: str, config: dict[str, Any], groups: Iterable[str]) -> dict[str, Any]:
    """Those ``groups`` of the checkpoint's own configuration that are older than options in ``config``."""
    saved = load_checkpoint(path)["config"]
    parts = {group: saved[group] for group in groups if is_older(saved.get(group), config.get(group))}
    if parts:
        log.warning("%s is older than options of %s: the run goes on with its own of these", path, ", ".join(parts))
    return parts


def check_fits(task: nn.Module, path: str) -> None:
    """Load the weights. Raises CheckpointError if the architecture or the optimiser's parameter groups differ."""
    checkpoint = load_checkpoint(path)
    load_weights(task, checkpoint["state_dict"], path)
    for state in checkpoint.get("optimizer_states", []):
        found, expected = [group.get("name") for group in state["param_groups"]], task.groups()
        if found != expected:
            raise CheckpointError(
                f"cannot resume from {path}: its optimiser has the groups {', '.join(map(str, found))}, this one "
                f"{', '.join(expected)}: keep optim.*.weight_decay and optim.*.decay as they were"
            )


def _intact(path: Path) -> str:
    """``path``, or ``previous.ckpt`` beside it if ``path`` is damaged. Raises CheckpointError if both are."""
    if not (reason := damage(path)):
        return str(path)
    previous = path.with_name(PREVIOUS)
    if path.name != LAST or not previous.is_file():
        if not path.is_file():
            raise CheckpointError(f"there is no checkpoint at {path}: give the path of a .ckpt file of a run")
        raise CheckpointError(f"cannot resume from {path}: {reason}; choose another checkpoint")
    if also := damage(previous):
        raise CheckpointError(
            f"cannot resume from {path}: {reason}; nor from {previous}: {also}; best.ckpt beside them may be intact"
        )
    log.warning("cannot resume from %s: %s; resuming from %s, step %d", path, reason, previous, step_of(previous))
    return str(previous)
