"""Around training: precision, record of the run in its folder, checks of the configuration, what a search minimises."""

import errno
import fcntl
import json
import logging
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LearningRateMonitor
from omegaconf import DictConfig, OmegaConf
from torch import nn

from codec.checkpoints.renamed import with_current_names
from codec.utils.errors import InputError
from codec.utils.redact import redact

COUNTS = ("accumulate_grad_batches", "log_every_n_steps")  # of the Trainer, in steps

log = logging.getLogger("train")


def precision(choice: str) -> str:
    """Lightning's precision for a choice; ``auto`` is bf16-mixed if the GPU supports it, fp32 otherwise. Raises
    InputError where weights and codebooks would not be fp32."""
    if str(choice) in ("16-true", "bf16-true", "64-true", "64") or "transformer-engine" in str(choice):
        raise InputError(f"trainer.precision={choice}, but weights and codebooks are fp32: use bf16-mixed or 32-true")
    if choice != "auto":
        return choice
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def trainer_options(cfg: DictConfig) -> dict[str, Any]:
    """Arguments of the Trainer beside those in ``cfg.trainer``. Raises InputError for what endless data cannot do."""
    if cfg.trainer.get("overfit_batches"):
        raise InputError("trainer.overfit_batches needs data that ends: to overfit, train on a few recordings instead")
    every = {"val_every": cfg.val_every} | {name: cfg.trainer.get(name) for name in COUNTS}
    if zero := [name for name, number in every.items() if number is not None and number < 1]:
        raise InputError(f"{zero[0]}={every[zero[0]]}, but it counts steps: set it to 1 or more")
    options = {}
    for part in ("logger", "callbacks"):
        options[part] = [one for one in instantiate(cfg.get(part) or {}, _convert_="all").values() if one]
    if not options["logger"]:
        options["callbacks"] = [one for one in options["callbacks"] if not isinstance(one, LearningRateMonitor)]
    options["precision"] = precision(cfg.trainer.precision)
    options["val_check_interval"] = cfg.val_every * cfg.trainer.accumulate_grad_batches  # Lightning counts batches
    return options


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


def is_first() -> bool:
    """Whether this process has rank 0, by the environment: no process group exists yet."""
    variables = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # of torchrun, srun and Lightning
    return not int(next((os.environ[name] for name in variables if name in os.environ), 0))


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """Lock a run folder on rank 0. Raises InputError if a process has it that is alive, here or on another host.

    The system frees the lock of a process that dies. A network file system without a lock service has no locks.
    """
    if not is_first():
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    # a POSIX lock, which data loaders do not inherit: they outlive a killed process by seconds
    with open(Path(folder, ".lock"), "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                owner = file.read(99) or "another process"
                raise InputError(f"{folder} is in use by {owner}: wait for it, or name another folder") from None
            log.warning("%s cannot be locked (%s): start no second run in it", folder, error.strerror)
        file.truncate(0)
        print(f"process {os.getpid()} on {platform.node()}", end="", file=file, flush=True)
        yield


def record(folder: str | Path, config: dict[str, Any], task: nn.Module) -> None:
    """Write ``config.yaml`` and ``parts.json`` (git commit; class and size of each part; a teacher's if it trains) on
    rank 0, and rename an earlier ``csv/metrics.csv`` to ``metrics-N.csv``."""
    if not is_first():
        return
    folder, built = Path(folder), {}
    folder.mkdir(parents=True, exist_ok=True)
    csv = folder / "csv" / "metrics.csv"
    if csv.exists():
        ends = (one.stem.rpartition("-")[2] for one in csv.parent.glob("metrics-*.csv"))
        csv.rename(csv.with_name(f"metrics-{1 + max((int(end) for end in ends if end.isdecimal()), default=0)}.csv"))
    for name, part in task.parts().items():
        frozen = name in getattr(task, "frozen", ())
        count = sum(p.numel() for p in part.parameters() if p.requires_grad or frozen)
        built[name] = {"class": f"{type(part).__module__}.{type(part).__name__}", "parameters": count, "frozen": frozen}
        log.info("%-22s %12s parameters  %s%s", name, f"{count:,}", built[name]["class"], ", frozen" * frozen)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)), encoding="utf-8")
    parts = json.dumps({"git_commit": git_commit(), "parts": built}, indent=2)
    (folder / "parts.json").write_text(f"{parts}\n", encoding="utf-8")


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
    if task.frozen and not (task.config.get("init_from") or task.config.get("ckpt_path")):
        raise InputError(f"freeze=[{','.join(task.frozen)}] is for parts of a trained codec: name it in init_from=")
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


def chosen(name: str, values: Mapping[str, Any], searching: bool = True) -> float:
    """Value of validation by name; without a search NaN if there is none.

    Raises InputError in a search if it is another's, such as one of training, or there is none.
    """
    if not searching:
        return float(values.get(name, math.nan))
    known = sorted(key for key in values if key.startswith("val/"))
    if name not in known:
        raise InputError(f"search_metric={name}: a search needs a value of validation; there are {', '.join(known)}")
    return float(values[name])
