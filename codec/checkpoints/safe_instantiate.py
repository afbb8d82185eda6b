"""Instantiation of an untrusted configuration, such as that of a checkpoint.

It may name classes of given parts of this package, with plain values. Nothing is resolved: ``${oc.env:...}`` would read
the environment, and ``${oc.create:...}`` could name a class after the check. Hydra's other keys are refused.
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
from codec.utils.errors import InputError, first_line

# MODEL and FLOW are built from any checkpoint: they open no file, connection or process (tests/test_security.py).
MODEL = ("codec.model", "codec.encoders", "codec.decoders", "codec.quantizers")
MODEL += ("codec.layers.seanet", "codec.layers.transformer")  # not all: spectrograms allocate before they register
FLOW = ("codec.flow.model", "codec.flow.dit", "codec.flow.conditioning", "codec.flow.text_conditioning")
FLOW += ("codec.flow.speaker_prompt", "codec.flow.objective")
DATA = ("codec.data",)  # on request: reads the user's files and Hub datasets, writes to the user's cache folder only
# a training step, on request; its teachers read weights and cached results
STEP = (*MODEL, "codec.discriminators", "codec.losses", "codec.training.optim", "codec.distillation")
STEP += ("codec.data.espeak", "codec.data.folder")
FACTORIES = {"codec.data.hf.open_hub"}  # functions, not classes, that `_target_` may name
FOREIGN_FOLDERS = ("cache",)  # options with which a class of DATA would write to a given folder
# fsspec's options, some of which write to given folders or run templates; and the separator of chained file systems
FOREIGN_OPTIONS, CHAIN = ("storage_options",), "::"

MAX_DEPTH, MAX_VALUES, MAX_NUMBER, MAX_TEXT = 24, 5_000, 2**32, 20_000  # the longest text has a language's characters
REFUSALS = (TypeError, ValueError, ArithmeticError, RuntimeError, MemoryError, AttributeError, LookupError)


class CheckpointError(InputError):
    """The file is not a checkpoint that this project can use."""


def build(config: dict[str, Any], among: tuple[str, ...] = MODEL) -> Any:
    """Instantiate an untrusted configuration, which may name classes of the packages and modules in ``among``.

    Raises CheckpointError for anything else in it, and if a class refuses its arguments.
    """
    check_targets(config, among)  # first: it bounds the depth of what follows
    try:
        return _instantiate(with_current_names(config))
    except REFUSALS as error:
        if type(error).__module__.startswith("codec."):
            raise  # one of our errors
        raise CheckpointError(f"its configuration cannot be built: {first_line(error)}") from error


def _instantiate(config: Any) -> Any:
    """Replace dicts with a ``_target_`` by the objects that they describe, the innermost first."""
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
    """Raises CheckpointError for a configuration with non-plain values or with classes outside ``among``."""
    left = [(config, 0)]
    count = 0
    while left:
        value, depth = left.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
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
    for key, value in config.items():
        if not isinstance(key, str) or (key.startswith("_") and key != "_target_") or "${" in key:
            raise CheckpointError(f"the configuration has the key {str(key)[:100]!r}, which is none of this package's")
        if key in FOREIGN_FOLDERS and value is not None and key not in removed_options(config):
            raise CheckpointError(f"the configuration would write to {str(value)[:100]!r}: name a dataset= of yours")
        if key in FOREIGN_OPTIONS and value:
            raise CheckpointError(f"the configuration has {key}, which open other places: name a dataset= of yours")


def _check_value(value: Any) -> None:
    if isinstance(value, str):
        if "${" in value or len(value) > MAX_TEXT:
            raise CheckpointError(f"the configuration holds {value[:100]!r}, which is no plain value")
        if CHAIN in value:
            raise CheckpointError(f"the configuration chains file systems in {value[:100]!r}: name a dataset= of yours")
    elif isinstance(value, int):
        if abs(value) > MAX_NUMBER:
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
    return isinstance(found, type) and found.__module__ == module  # not what the module imports


@contextmanager
def no_larger_than(weights: dict[str, Any]) -> Iterator[None]:
    """A context in which building a model far larger than ``weights`` raises CheckpointError.

    Layers register tensors before they fill them, so that a model that is too large costs neither memory nor time.
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
