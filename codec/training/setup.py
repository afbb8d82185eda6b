"""Before the first step: precision, what a run records of itself, and checks of what would end it later."""

import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from codec.utils.errors import InputError
from codec.utils.redact import redact

log = logging.getLogger("train")


def precision(choice: str) -> str:
    """Lightning's precision for ``auto``: bf16-mixed where a GPU computes in it, fp32 otherwise."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def git_commit() -> str:
    """The commit of the working tree, with ``+changes`` where it differs, or ``unknown`` outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changes.strip() else "")


def parts(task: nn.Module) -> dict[str, dict[str, Any]]:
    """Class and trainable parameters of each part that was really built, discriminators one by one."""
    return {
        name: {
            "class": f"{type(module).__module__}.{type(module).__name__}",
            "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        }
        for name, module in task.parts().items()
    }


def rank() -> int:
    """The number of this process among all that train together, before Lightning has brought them together.

    As torchrun, SLURM and Lightning's own launcher say it; 0 where a process trains alone.
    """
    return int(next((os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ), 0))


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as it is kept: plain, resolved and without secrets."""
    return redact(OmegaConf.to_container(cfg, resolve=True))


def record(folder: str | Path, config: dict[str, Any], task: nn.Module) -> None:
    """Write ``config.yaml`` (resolved) and ``parts.json`` (with the git commit) into the run folder, move the log of an
    earlier part of the run out of the way, and log the parts. Of processes that train together, the first does so."""
    if rank():
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder / "csv" / "metrics.csv")
    built = parts(task)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    (folder / "parts.json").write_text(json.dumps({"git_commit": git_commit(), "parts": built}, indent=2) + "\n")
    for name, part in built.items():
        log.info("%-22s %12s parameters  %s", name, f"{part['parameters']:,}", part["class"])


def check_steps(max_steps: int) -> None:
    """Raises InputError if no step is asked for."""
    if max_steps < 1:
        raise InputError(f"max_steps={max_steps}, but training is counted in steps: set it to how many")


def check(task: nn.Module, data: Any, max_steps: int) -> None:
    """Find out before the first step of a codec's training what would end it later.

    Raises:
        InputError: if a side would never begin or nothing would teach it, a training segment is too short for a loss or
            a discriminator, no step is asked for, or there is nothing to validate on.
    """
    check_steps(max_steps)
    if task.has_discriminators and task.adversarial_start >= max_steps:
        start = task.adversarial_start
        raise InputError(f"the discriminators begin at adversarial_start={start}, but max_steps={max_steps}")
    if task.codec_start and not (task.has_discriminators and task.adversarial_start < task.codec_start < max_steps):
        raise InputError(
            f"the codec begins at codec_start={task.codec_start} of {max_steps} steps, and until then discriminators "
            f"should learn: choose a disc= that begins earlier (adversarial_start={task.adversarial_start})"
        )
    if task.codec_start and not (task.config.get("init_from") or task.config.get("ckpt_path")):
        raise InputError(
            f"codec_start={task.codec_start} lets discriminators learn from a codec that has been trained: name it in "
            "init_from="
        )
    until = task.losses.reconstruction_until
    if until is not None and not (task.has_discriminators and task.adversarial_start <= until):
        raise InputError(
            f"reconstruction losses end at loss.reconstruction_until={until}, and then discriminators should teach: "
            f"choose a disc= that has begun by then (adversarial_start={task.adversarial_start})"
        )
    silence = torch.zeros(1, 1, data.samples)
    try:
        with torch.no_grad():
            task.losses.reconstruction(silence, silence)
            task.discriminators(silence)
    except ValueError as error:
        raise InputError(f"segment: {error}") from error
    data.setup("fit")
    if not len(data.val_dataloader().dataset):
        bad = f" and can be read ({data.read_errors.summary()})" if data.read_errors.bad else ""
        raise InputError(f"nothing is held out for validation{bad}: raise dataset.holdout")


def keep(file: Path) -> None:
    """Move a file of an earlier part of the run out of the way of a logger that would begin it anew."""
    if file.exists():
        ends = (one.stem.rpartition("-")[2] for one in file.parent.glob(f"{file.stem}-*{file.suffix}"))
        number = 1 + max((int(end) for end in ends if end.isdecimal()), default=0)
        file.rename(file.with_name(f"{file.stem}-{number}{file.suffix}"))
