"""Start and end of train.py and eval.py: renamed options, sweeps, and input errors reported in one sentence."""

import functools
import logging
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from codec.cli.integers import whole_numbers_of_run
from codec.utils.environment import prepare
from codec.utils.errors import InputError, UserError, shortened
from codec.utils.quoting import option
from codec.utils.redact import NoSecrets, redact_hydra, redact_text

log = logging.getLogger("train")
no_secrets = NoSecrets()  # one object: logging adds a filter to a handler only once

FLAGS = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--info", "-i")
FLAGS += ("--cfg", "-c", "--experimental-rerun")
# Old -> current options. "key" also matches longer keys ("key.x"), "key=" only itself; "key=choice" is replaced whole.
TEXT = ("aligned_phones", "characters", "spread_characters", "phones")
SPEAKER = ("prompt", "prompt_attention")
RENAMED = {
    "quantizer=rvq12": "quantizer=rvq quantizer.n_q=12",
    "quantizer=rvq32": "quantizer=rvq quantizer.n_q=32",
    "callback@callbacks.curve=kept": "callbacks=[codec,keep_all], or [flow,keep_all] with task=flow",
    "callbacks.curve": "callbacks.keep_all",
    "callbacks.end": "callbacks.last_step",
    "callbacks.guard": "callbacks.nonfinite_guard",
    "callbacks.leave": "callbacks.preemption",
    "callbacks.random": "callbacks.rng_state",
    "callbacks.waiting": "callbacks.throughput",
    "callbacks.watch": "callbacks.gan_monitor",
    "alignment=repa": "repa=phones",
    "alignment": "repa",
    "teacher@alignment.teacher": "repa",
    **{f"condition={text}+{speaker}": f"text={text} speaker={speaker}" for text in TEXT for speaker in SPEAKER},
    **{f"condition={speaker}": f"speaker={speaker}" for speaker in SPEAKER},
    "condition=none": "text=none speaker=none",
    "condition=": "text=",
    **{f"condition.members.{text}": "text" for text in TEXT},
    **{f"condition.members.{speaker}": "speaker" for speaker in SPEAKER},
    "objective": "flow_objective",
    "flow=": "flow_size=",
    "codec=": "codec_ckpt=",
}

REMOVED = {"distill.cache": "a teacher's features are computed anew for every crop"}


def renamed(override: str) -> str | None:
    """The current spelling of a command-line override; None if it has not been renamed."""
    key, equals, value = override.lstrip("+~").partition("=")
    for old, new in RENAMED.items():
        name, alone, choice = old.partition("=")
        if choice and key == name and choice in value.split(","):
            return new
        if not choice and (key == name or (not alone and key.startswith(f"{name}."))):
            return f"{new.removesuffix('=')}{key.removeprefix(name)}{equals}{value}"
    return None


def refuse_renamed(main: Callable[[], Any]) -> Callable[[], Any]:
    """Decorator of a Hydra program, which it prepares: a renamed option exits with its new name, and one that Hydra's
    grammar does not take with the quotes that it needs."""

    @functools.wraps(main)
    def checked() -> Any:
        prepare()
        for override in overrides_of(sys.argv[1:]):
            if reason := REMOVED.get(override.lstrip("+~").partition("=")[0]):
                sys.exit(f"error: {override} is no option any more ({reason}): leave it out")
            if new := renamed(override):
                sys.exit(f"error: {override} has been renamed: write {new}")
            if reason := misspelt(override):
                sys.exit(f"error: {redact_text(f'{shortened(override, 200)} {reason}')}")
        return main()

    return checked


def overrides_of(arguments: Sequence[str]) -> list[str]:
    """The words of a command line that are overrides, not flags of Hydra or their values."""
    return [word for before, word in zip(("", *arguments), arguments) if word[:1] != "-" and before not in FLAGS]


def misspelt(word: str) -> str:
    """How to write an override that Hydra's grammar does not take, or that chooses null of a group; "" for others."""
    key, equals, value = word.partition("=")
    group = Path(__file__).parents[2] / "conf" / key
    if value == "null" and key.isidentifier() and group.is_dir():
        options = ", ".join(sorted(path.stem for path in group.glob("[!_]*.yaml")))
        return f"chooses nothing: write {key}=OPTION ({options}), or ~{key} for none"
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        if equals and re.fullmatch(r"[+~]*[\w.@/:]+", key, re.ASCII):
            return f"has characters that need quotes: write {option(key, os.path.expanduser(value))}"
        return "is no option: write NAME=VALUE; --help lists the names"
    return ""


def in_sweep() -> bool:
    """Whether this run belongs to a Hydra multirun (``-m``)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def user_error_of(error: Exception) -> BaseException | None:
    """The input error without Hydra's wrapper; None for a bug in the program."""
    cause = error.__cause__ if isinstance(error, InstantiationException) else error  # a class rejected its arguments
    if str(cause).startswith("DataLoader "):  # a process of it was killed, or sent nothing
        return InputError(f"{cause}: data.workers=0 shows why, and needs no shared memory")
    if type(cause).__name__ == "MisconfigurationException":  # Lightning's, which is imported where it trains
        return InputError(str(cause))
    if isinstance(cause, OmegaConfBaseException):  # an option that others need has been removed, as by ~encoder
        return InputError(f"the configuration is not complete: {str(cause).splitlines()[0]}")
    refused = isinstance(cause, UserError if cause is error else UserError | ValueError)
    return cause if refused or (cause is not error and "unexpected keyword argument" in str(cause)) else None


@contextmanager
def one_sentence(cfg: DictConfig | None = None) -> Iterator[None]:
    """Exit with a one-sentence message on an input error; other errors show their traceback. Log files get both.

    First removes secrets from Hydra's records of the run. In a sweep, errors are raised again: Hydra continues with the
    next run and shows the first error at the end.
    """
    for handler in logging.getLogger().handlers:
        handler.addFilter(no_secrets)
    try:
        if HydraConfig.initialized():
            hydra = HydraConfig.get()
            for folder in {hydra.runtime.output_dir, *([hydra.sweep.dir] if in_sweep() else [])}:
                redact_hydra(Path(folder))
        if cfg is not None:
            whole_numbers_of_run(cfg)
        yield
    except Exception as error:
        cause = user_error_of(error)
        if in_sweep():
            log.error("error: %s", cause or error, exc_info=cause is None)
            raise
        _log_to_files(cause or error, trace=cause is None)
        if cause is not None:
            sys.exit(f"error: {cause}")
        raise


def _log_to_files(error: BaseException, trace: bool) -> None:
    exc_info = (type(error), error, error.__traceback__) if trace else None
    record = log.makeRecord(log.name, logging.ERROR, __file__, 0, "error: %s", (error,), exc_info)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def join_sweep(devices: Any) -> None:
    """Prepare a sweep's process for training; outside a sweep, :func:`check_run_folder`. Raises InputError if Lightning
    would start more processes, each of which would restart the sweep (hydra#2070)."""
    if not in_sweep():
        check_run_folder()
        return
    if devices not in (1, "1") and not os.environ.keys() & {"LOCAL_RANK", "SLURM_NTASKS"}:
        raise InputError(f"trainer.devices={devices} in a sweep: each process would begin the whole sweep anew; use 1")
    multiprocessing.set_start_method(None, force=True)  # joblib sets its own, under which data loaders cannot start


def check_run_folder() -> None:
    """Raise InputError if the processes of torchrun or srun would each name a run folder by their own start time."""
    world = os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1") if "SLURM_STEP_ID" in os.environ else "1")
    named = HydraConfig.initialized() and any(o.startswith("hydra.run.dir=") for o in HydraConfig.get().overrides.hydra)
    if world != "1" and not named and not os.environ.keys() & {"RUN_ID", "WANDB_RUN_ID"}:
        raise InputError(
            f"these are {world} processes of one run, which need one run folder: set RUN_ID to its name, the same for "
            "all, or give hydra.run.dir=DIR"
        )
