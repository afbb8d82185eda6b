"""A configuration from outside, as in a checkpoint: what it may say, and what may be built from it.

It names classes of chosen parts of this package and gives them plain values. Nothing in it is resolved (Hydra would
read environment variables for ``${oc.env:...}``, and ``${oc.create:...}`` could write down a class that no check has
seen), and no other of Hydra's instructions (``_partial_``, ``_args_``, ...) has a place in it.

``MODEL`` (a codec) and ``FLOW`` (a flow model) are built from anybody's checkpoint: these parts open no file, no
network and no process (tests/test_security.py reads that from their sources). ``DATA`` reads recordings, and is for who
asks for the dataset of a checkpoint (:func:`codec.evaluation.systems.corpus_of`): it may read what the user may read,
ask the Hub for a dataset, and write to the user's cache folder, but to no folder of its choice: it gives fsspec no
options, and chains no places. ``STEP`` is what a training step is made of, teachers that read weights and what they
learnt from included, and is for who repeats a step of a run (:func:`codec.training.replay.replay`).
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from codec.checkpoints.renamed import current_name, removed_options, with_current_names
from codec.utils.errors import InputError

MODEL = ("codec.model", "codec.encoders", "codec.decoders", "codec.quantizers", "codec.layers")
FLOW = ("codec.flow.model", "codec.flow.dit", "codec.flow.conditioning", "codec.flow.text_conditioning")
FLOW += ("codec.flow.speaker_prompt", "codec.flow.objective")
DATA = ("codec.data",)
STEP = (*MODEL, "codec.discriminators", "codec.losses", "codec.training.optim", "codec.distillation")
STEP += ("codec.data.espeak", "codec.data.folder")
FACTORIES = {"codec.data.hf.open_hub"}  # the functions among our own `_target_`s; all others are classes
FOREIGN_FOLDERS = ("cache",)  # options by which a class of DATA would write where it is told to
# options of fsspec's file systems, some of which write where they are told to, or run templates; and what chains them
FOREIGN_OPTIONS, CHAIN = ("storage_options",), "::"

DEEPEST, MOST_VALUES, LARGEST_NUMBER = 24, 5_000, 2**32
REFUSALS = (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError, AttributeError, LookupError)
LONGEST_TEXT = 20_000  # all characters of a language


class CheckpointError(InputError):
    """The file is not a checkpoint that this project can use; the message says why."""


def build(config: dict[str, Any], among: tuple[str, ...] = MODEL) -> Any:
    """Instantiate a configuration from outside.

    Args:
        among: the parts of the package whose classes it may name.

    Raises:
        CheckpointError: says what it may not hold, or which part refused its arguments.
    """
    check_targets(config, among)  # first: it bounds the depth of what follows
    try:
        return _instantiate(with_current_names(config))
    except REFUSALS as error:
        if type(error).__module__.startswith("codec."):
            raise  # a sentence of ours
        raise CheckpointError(f"its configuration cannot be built: {_first_line(error)}") from error


def _instantiate(config: Any) -> Any:
    """Dicts with a ``_target_`` become the objects that they describe, the innermost first."""
    if isinstance(config, list):
        return [_instantiate(value) for value in config]
    if not isinstance(config, dict):
        return config
    options = {key: _instantiate(value) for key, value in config.items()}
    if "_target_" not in options:
        return options
    module, _, name = options.pop("_target_").rpartition(".")
    return getattr(importlib.import_module(module), name)(**options)


def check_targets(config: Any, among: tuple[str, ...] = (*MODEL, *DATA)) -> None:
    """Refuse a configuration that is not plain, or names anything but classes of these parts (see the module).

    Raises:
        CheckpointError: names the first value that is refused.
    """
    left = [(config, 0)]
    count = 0
    while left:
        value, depth = left.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            raise CheckpointError("the configuration is larger than any of this package")
        if isinstance(value, dict):
            _check_keys(value, among)
            left += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple):
            left += [(inner, depth + 1) for inner in value]
        else:
            _check_value(value)


def _check_keys(config: dict[Any, Any], among: tuple[str, ...]) -> None:
    if "_target_" in config and not _is_own_class(current_name(config["_target_"]), among):
        target = str(config["_target_"])[:100]
        raise CheckpointError(f"the configuration names {target!r}, which is not a class of this package that it may")
    for key in config:
        if not isinstance(key, str) or (key.startswith("_") and key != "_target_") or "${" in key:
            raise CheckpointError(f"the configuration has the key {str(key)[:100]!r}, which is none of this package's")
        if key in FOREIGN_FOLDERS and config[key] is not None and key not in removed_options(config):
            place = str(config[key])[:100]
            raise CheckpointError(f"the configuration would write to {place!r}: name a dataset= of yours")
        if key in FOREIGN_OPTIONS and config[key]:
            raise CheckpointError(f"the configuration has {key}, which open other places: name a dataset= of yours")


def _check_value(value: Any) -> None:
    if isinstance(value, str):
        if "${" in value or len(value) > LONGEST_TEXT:
            raise CheckpointError(f"the configuration holds {value[:100]!r}, which is no plain value")
        if CHAIN in value:
            raise CheckpointError(
                f"the configuration names {value[:100]!r}, a place in a place: name a dataset= of yours"
            )
    elif isinstance(value, int):
        if abs(value) > LARGEST_NUMBER:
            raise CheckpointError("the configuration holds a number larger than any of this package")
    elif value is not None and not isinstance(value, float):
        raise CheckpointError(f"the configuration holds a {type(value).__name__}, which is no plain value")


def _is_own_class(target: Any, among: tuple[str, ...]) -> bool:
    if not isinstance(target, str) or not any(target.startswith(f"{part}.") for part in among):
        return False
    if target in FACTORIES:
        return True
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        return False
    return isinstance(found, type) and found.__module__ == module  # `codec.x.os.system` has another home


@contextmanager
def no_larger_than(weights: dict[str, Any]) -> Iterator[None]:
    """While a model is built: it ends as soon as it is far larger than the weights that are to be loaded into it.

    Layers make their tensors known before they fill them, so that too large a model costs neither memory nor time.

    Raises:
        CheckpointError: then.
    """
    tensors = [value for value in weights.values() if isinstance(value, Tensor)]
    room = [4 * sum(value.numel() for value in tensors) + 2**22, 4 * len(tensors) + 256]  # weight norm makes each twice

    def count(module: nn.Module, name: str, value: Tensor | None) -> None:
        if value is not None:
            room[0] -= value.numel()
            room[1] -= 1
        if min(room) < 0:
            raise CheckpointError("its configuration describes a larger model than its weights are of")

    hooks = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
