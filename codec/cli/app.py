"""How a program ends: one sentence for an input error, alone or in a sweep."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode

from codec.utils.errors import InputError, UserError
from codec.utils.redact import NoSecrets, redact_hydra

log = logging.getLogger("train")


no_secrets = NoSecrets()  # one: a handler takes it once, however often a sweep passes here


def in_sweep() -> bool:
    """Whether this run is one of a Hydra multirun (``-m``)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def user_error_of(error: Exception) -> BaseException | None:
    """What there is to say of an error that the input caused; None where it is the program's."""
    if isinstance(error, InstantiationException):  # Hydra's wrapping of a part that refused its arguments
        cause = error.__cause__
        refused = isinstance(cause, UserError | ValueError)
        return cause if refused or "unexpected keyword argument" in str(cause) else None
    return error if isinstance(error, UserError) else None


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
        cause = user_error_of(error)
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
