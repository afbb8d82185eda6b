"""Around a run: how it ends, alone or in a sweep, its precision, and what it leaves behind besides weights."""

import json
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from torch import nn

from codec.checkpoint import CheckpointError
from codec.data.base import CorpusError
from codec.errors import InputError, ToldError
from codec.metrics.base import MissingError
from codec.redact import NoSecrets, redact, redact_hydra

log = logging.getLogger("train")
no_secrets = NoSecrets()  # one: a handler takes it once, however often a sweep passes here


SAID = ToldError | CorpusError | CheckpointError | MissingError  # a sentence says all


def in_sweep() -> bool:
    """Whether this run is one of a Hydra multirun (``-m``)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def at_fault(error: Exception) -> BaseException | None:
    """What there is to say of an error that the input caused; None where it is the program's."""
    if isinstance(error, InstantiationException):  # Hydra's wrapping of a part that refused its arguments
        cause = error.__cause__
        refused = isinstance(cause, CorpusError | MissingError | ValueError)
        return cause if refused or "unexpected keyword argument" in str(cause) else None
    return error if isinstance(error, SAID) else None


def clean_record() -> None:
    """Hide the secrets in what Hydra has written of this run by now, and of the sweep that it is one of."""
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        for folder in {hydra.runtime.output_dir, *([hydra.sweep.dir] if in_sweep() else [])}:
            redact_hydra(Path(folder))


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the program with one sentence where the input is at fault; other errors keep their trace. Before all else,
    Hydra's record loses its secrets: a run that is refused keeps it too.

    A run keeps the error in its log, which hides secrets. One of a sweep also passes it on: Hydra goes on with the next
    run and shows the first error at the end, whereas an exit would end the whole sweep.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(no_secrets)
    try:
        clean_record()
        yield
    except Exception as error:
        cause = at_fault(error)
        if in_sweep():
            log.error("error: %s", cause or error, exc_info=cause is None)
            raise
        keep_error(cause or error, trace=cause is None)
        if cause is not None:
            sys.exit(f"error: {cause}")
        raise


def keep_error(error: BaseException, trace: bool) -> None:
    """Write the error into the log files of the program, where it has any: what the terminal shows is gone tomorrow."""
    exc_info = (type(error), error, error.__traceback__) if trace else None
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "error: %s", (error,), exc_info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def join_sweep(devices: Any) -> None:
    """Make a process of a sweep's launcher one that can train; nothing where there is no sweep.

    Raises:
        InputError: if Lightning would start more processes: each would begin the whole sweep anew (hydra#2070). Or if
            processes that were started together would each call the run folder after its own time.
    """
    if not in_sweep():
        one_folder()
        return
    if devices not in (1, "1") and not os.environ.keys() & {"LOCAL_RANK", "SLURM_NTASKS"}:
        raise InputError(f"trainer.devices={devices} in a sweep: each process would begin the whole sweep anew; use 1")
    multiprocessing.set_start_method(None, force=True)  # joblib's own, under which data loaders cannot start


def one_folder() -> None:
    """Raise InputError if processes that torchrun or srun has started together have no run folder in common."""
    world = os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_ID" in os.environ else "1")
    told = HydraConfig.initialized() and any(o.startswith("hydra.run.dir=") for o in HydraConfig.get().overrides.hydra)
    if world != "1" and not told and not os.environ.keys() & {"RUN_ID", "WANDB_RUN_ID"}:
        raise InputError(
            f"these are {world} processes of one run, which need one run folder: set RUN_ID to its name, the same for "
            "all, or give hydra.run.dir=DIR"
        )


@contextmanager
def ending_wandb() -> Iterator[None]:
    """End the W&B run, where there is one, with this run: the next of a sweep in this process would go on in it."""
    code = 1
    try:
        yield
        code = 0
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish(exit_code=code)


def precision(choice: str) -> str:
    """Lightning's precision for ``auto``: bf16-mixed where a GPU computes in it, fp32 otherwise."""
    if choice != "auto":
        return choice
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def usable_device(choice: str) -> str:
    """The device of this name; ``auto`` is the GPU where there is one.

    Raises:
        InputError: if it cannot be used here.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if choice == "auto" else str(choice)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={choice} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def check_free(files: Sequence[Path], force: bool) -> None:
    """Raises InputError if one of the files exists and is not to be replaced."""
    there = [file for file in files if file.exists()]
    if there and not force:
        raise InputError(f"{there[0]} exists already: give another place, or --force to replace it")


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
        bad = f" and can be read ({data.ledger.summary()})" if data.ledger.bad else ""
        raise InputError(f"nothing is held out for validation{bad}: raise dataset.holdout")


def check_evaluation(cfg: Any) -> None:
    """Find out before the first clip what would end an evaluation later.

    Raises:
        InputError: if there is no such split, or a number of clips or processes is none.
    """
    if cfg.split not in ("train", "val", "test"):
        raise InputError(f"split={cfg.split}: choose train, val or test")
    if cfg.clips is not None and cfg.clips < 1:
        raise InputError(f"clips={cfg.clips}: give a number from 1, or null for all")
    if cfg.workers is not None and cfg.workers < 0:
        raise InputError(f"workers={cfg.workers}: give a number of processes, 0 for none, or null for one per core")
    if cfg.listening > cfg.audio:
        raise InputError(f"listening={cfg.listening} clips need sound of as many: raise audio={cfg.audio}")


def keep(file: Path) -> None:
    """Move a file of an earlier part of the run out of the way of a logger that would begin it anew."""
    if file.exists():
        ends = (one.stem.rpartition("-")[2] for one in file.parent.glob(f"{file.stem}-*{file.suffix}"))
        number = 1 + max((int(end) for end in ends if end.isdecimal()), default=0)
        file.rename(file.with_name(f"{file.stem}-{number}{file.suffix}"))
