"""From a checkpoint file back to a codec, without trusting the file.

A checkpoint is loaded with ``weights_only=True`` (tensors and plain values; nothing is unpickled), and the
configuration inside it may build classes of this package only.
"""

import importlib
import zipfile
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from codec.model import Codec
from codec.storage import PREVIOUS, bad_record

FACTORIES = {"codec.data.hf.open_hub"}  # the functions among our own `_target_`s; all others are classes


class CheckpointError(ValueError):
    """The file is not a checkpoint that this project can use; the message says why."""


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Everything in a checkpoint, on the CPU.

    Raises:
        CheckpointError: if there is no such file, it is damaged, holds more than tensors and plain values, or has no
        ``config``.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}: give the path of a .ckpt file of a run")
    if zipfile.is_zipfile(path) and (reason := bad_record(path)):  # torch.load would take it
        beside = f"; the one before is {path.with_name(PREVIOUS)}" if path.with_name(PREVIOUS).is_file() else ""
        raise CheckpointError(f"{path} is damaged: {reason}{beside}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of weights and plain values: {first[:200]}"
        ) from error
    if (
        not isinstance(checkpoint, dict)
        or not isinstance(checkpoint.get("config"), dict)
        or "state_dict" not in checkpoint
    ):
        raise CheckpointError(f"{path} is no checkpoint of this project: it has no configuration and weights")
    return checkpoint


def load_codec(path: str | Path, ema: bool = True) -> tuple[Codec, dict[str, Any]]:
    """The codec of a checkpoint in eval mode, and the checkpoint's configuration with ``step`` added.

    Args:
        ema: take the averaged weights where the checkpoint has them.

    Raises:
        CheckpointError: also if weights and configuration do not fit; names the tensors.
    """
    checkpoint = load_checkpoint(path)
    config = checkpoint["config"]
    codec = build(config["codec"])
    weights = {k.removeprefix("codec."): v for k, v in checkpoint["state_dict"].items() if k.startswith("codec.")}
    if ema and checkpoint.get("ema"):
        weights |= checkpoint["ema"]
    load_weights(codec, weights, str(path))
    return codec.eval(), {**config, "step": int(checkpoint.get("global_step", 0))}


def load_weights(module: torch.nn.Module, weights: dict[str, Any], source: str) -> None:
    """``module.load_state_dict`` whose refusal is one sentence.

    Raises:
        CheckpointError: names the missing, unknown and wrongly shaped tensors (the first three of each) and loads
        nothing.
    """
    compare_tensors(module.state_dict(), weights, f"the weights in {source} do not fit this model")
    module.load_state_dict(weights)


def compare_tensors(expected: dict[str, Any], found: dict[str, Any], claim: str) -> None:
    """Check the names and shapes of a state; where None is expected, any shape will do.

    Raises:
        CheckpointError: the claim, and the missing, unknown and wrongly shaped tensors (the first three of each).
    """
    shape = lambda value: list(value.shape) if isinstance(value, torch.Tensor) else None  # noqa: E731
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "wrongly shaped": [
            f"{name} {shape(found[name])} instead of {shape(expected[name])}"
            for name in sorted(expected.keys() & found.keys())
            if expected[name] is not None and shape(expected[name]) != shape(found[name])
        ],
    }
    named = [
        f"{len(v)} {kind} ({', '.join(v[:3])}{', ...' if len(v) > 3 else ''})" for kind, v in problems.items() if v
    ]
    if named:
        raise CheckpointError(f"{claim}: {'; '.join(named)}")


def build(config: dict[str, Any]) -> Any:
    """Instantiate a configuration from outside, which may name classes of this package only.

    Raises:
        CheckpointError: names the first ``_target_`` that is anything else.
    """
    check_targets(config)
    return instantiate(config, _convert_="all")


def check_targets(config: Any) -> None:
    """Refuse any ``_target_`` that is not a class defined in this package (see :func:`build`)."""
    if isinstance(config, dict):
        if "_target_" in config and not _is_own_class(config["_target_"]):
            raise CheckpointError(
                f"the configuration names {str(config['_target_'])[:100]!r}, which is not a class of this package"
            )
        for value in config.values():
            check_targets(value)
    elif isinstance(config, list | tuple):
        for value in config:
            check_targets(value)


def _is_own_class(target: Any) -> bool:
    if not isinstance(target, str) or not target.startswith("codec."):
        return False
    if target in FACTORIES:
        return True
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__ == module  # `codec.x.os.system` has another home
