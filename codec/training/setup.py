"""Before the first training step: precision, the record of the run in its folder, and checks of the configuration."""

import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from codec.checkpoints.renamed import with_current_names
from codec.utils.errors import InputError
from codec.utils.redact import redact

log = logging.getLogger("train")


def precision(choice: str) -> str:
    """Lightning's precision for a choice; ``auto`` is bf16-mixed if the GPU supports it, fp32 otherwise."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def git_commit() -> str:
    """Commit of the working tree, with ``+changes`` if it is modified; ``unknown`` outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+changes" if changes.strip() else "")


def with_current_classes(cfg: DictConfig) -> DictConfig:
    """An older run's configuration (``--config-path=RUN``) with the current names of classes and functions."""
    plain = with_current_names(OmegaConf.to_container(cfg))
    if not isinstance(plain.get("task"), dict):  # the name of a module, or, when there were only codecs, none
        package = "codec.flow.run" if "flow" in str(plain.get("task")) else "codec.training.run"
        if package == "codec.flow.run":
            plain["codec_ckpt"], plain["repa"] = plain.pop("codec", None), plain.pop("alignment", {})
        plain["task"] = {"_target_": f"{package}.build", "_partial_": True}
        plain["report"] = {"_target_": f"{package}.report", "_partial_": True, **plain.get("report", {})}
    current = OmegaConf.create(plain)
    OmegaConf.set_struct(current, True)
    return current


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration for checkpoints and run folders: plain, resolved and without secrets."""
    return redact(OmegaConf.to_container(cfg, resolve=True))


def record(folder: str | Path, config: dict[str, Any], task: nn.Module) -> None:
    """Write ``config.yaml`` and ``parts.json`` (git commit; class and trainable parameters of each part) on rank 0, and
    rename an earlier ``csv/metrics.csv`` to ``metrics-N.csv``."""
    variables = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # of torchrun, srun and Lightning; no process group exists yet
    if int(next((os.environ[name] for name in variables if name in os.environ), 0)):
        return
    folder, built = Path(folder), {}
    folder.mkdir(parents=True, exist_ok=True)
    csv = folder / "csv" / "metrics.csv"
    if csv.exists():
        ends = (one.stem.rpartition("-")[2] for one in csv.parent.glob("metrics-*.csv"))
        csv.rename(csv.with_name(f"metrics-{1 + max((int(end) for end in ends if end.isdecimal()), default=0)}.csv"))
    for name, part in task.parts().items():
        count = sum(p.numel() for p in part.parameters() if p.requires_grad)
        built[name] = {"class": f"{type(part).__module__}.{type(part).__name__}", "parameters": count}
        log.info("%-22s %12s parameters  %s", name, f"{count:,}", built[name]["class"])
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    (folder / "parts.json").write_text(json.dumps({"git_commit": git_commit(), "parts": built}, indent=2) + "\n")


def check_steps(max_steps: int) -> None:
    """Raise InputError if ``max_steps`` is less than 1."""
    if max_steps < 1:
        raise InputError(f"max_steps={max_steps}, but training is counted in steps: set it to how many")


def check(task: nn.Module, data: Any, max_steps: int) -> None:
    """Raise InputError for settings of a codec's training that would fail only later, or train nothing."""
    check_steps(max_steps)
    start, codec_start, until = task.adversarial_start, task.codec_start, task.losses.reconstruction_until
    if task.has_discriminators and start >= max_steps:
        raise InputError(f"the discriminators begin at adversarial_start={start}, but max_steps={max_steps}")
    if codec_start and not (task.has_discriminators and start < codec_start < max_steps):
        raise InputError(
            f"the codec begins at codec_start={codec_start} of {max_steps} steps, and before it the discriminators: "
            f"choose a disc= that begins earlier (adversarial_start={start})"
        )
    if codec_start and not (task.config.get("init_from") or task.config.get("ckpt_path")):
        raise InputError(f"codec_start={codec_start} is for discriminators of a trained codec: name it in init_from=")
    if until is not None and not (task.has_discriminators and start <= until):
        raise InputError(
            f"reconstruction losses end at loss.reconstruction_until={until}, and only discriminators are left: choose "
            f"a disc= that has begun by then (adversarial_start={start})"
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
