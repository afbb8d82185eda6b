"""Loading of a codec from an untrusted checkpoint file.

The file is checked (``pickle_check.py``) and loaded with ``weights_only=True``; its configuration can build classes of
this package only (``safe_instantiate.py``).
"""

from pathlib import Path
from typing import Any, TypeVar

import torch

from codec.checkpoints.pickle_check import check_archive
from codec.checkpoints.safe_instantiate import MODEL, CheckpointError, build, no_larger_than
from codec.checkpoints.save import PREVIOUS, corrupt_record
from codec.model import Codec

Module = TypeVar("Module", bound=torch.nn.Module)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises CheckpointError if the file is missing, damaged, has no ``config`` or has more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}: give the path of a .ckpt file of a run")
    try:
        check_archive(path)
        if reason := corrupt_record(path):
            previous = path.with_name(PREVIOUS)
            hint = f"; the one before is {previous}" if previous.is_file() else ""
            raise CheckpointError(f"{path} is damaged: {reason}{hint}")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of weights and plain values: {_line(error)}"
        ) from error
    if (
        not isinstance(checkpoint, dict)
        or not isinstance(checkpoint.get("config"), dict)
        or not isinstance(checkpoint.get("state_dict"), dict)
        or not isinstance(checkpoint.get("global_step", 0), int)
    ):
        raise CheckpointError(f"{path} is no checkpoint of this project: it has no configuration and weights")
    return checkpoint


def load_codec(path: str | Path, ema: bool = True) -> tuple[Codec, dict[str, Any]]:
    """The codec of a checkpoint in eval mode, and the checkpoint's configuration with ``step`` added.

    ``ema`` selects the EMA weights if the checkpoint has them. Raises CheckpointError also if weights and configuration
    do not fit, and names the tensors.
    """
    return load_part(path, "codec", Codec, MODEL, ema)


def load_part(
    path: str | Path, name: str, kind: type[Module], among: tuple[str, ...], ema: bool
) -> tuple[Module, dict[str, Any]]:
    """As :func:`load_codec`, for the module of class ``kind`` under ``name`` in a checkpoint's configuration.

    ``among`` lists the packages and modules whose classes may be built.
    """
    checkpoint = load_checkpoint(path)
    config, state = checkpoint["config"], checkpoint["state_dict"]
    if not isinstance(config.get(name), dict):
        raise CheckpointError(f"{path} is no checkpoint of a {name}: its configuration has none")
    weights = {k.removeprefix(f"{name}."): v for k, v in state.items() if str(k).startswith(f"{name}.")}
    if ema and isinstance(checkpoint.get("ema"), dict):
        weights |= checkpoint["ema"]
    _check_plain(weights, Path(path))
    with no_larger_than(weights):
        module = build(config[name], among)
    if not isinstance(module, kind):
        raise CheckpointError(
            f"{path} is no checkpoint of a {name}: its configuration builds a {type(module).__name__}"
        )
    load_weights(module, weights, str(path))
    return module.eval(), {**config, "step": checkpoint.get("global_step", 0)}


def _check_plain(weights: dict[Any, Any], path: Path) -> None:
    """Refuse tensors with more elements than the file, such as one element expanded to any shape."""
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    odd = [str(name) for name, value in tensors.items() if value.layout != torch.strided or value.is_quantized]
    odd += [str(name)[:100] for name in weights if not isinstance(name, str)]
    if odd or sum(v.numel() * v.element_size() for v in tensors.values()) > path.stat().st_size:
        what = f" ({odd[0]})" if odd else ""
        raise CheckpointError(f"{path} is no checkpoint of this project: its weights are no plain tensors{what}")


def load_weights(module: torch.nn.Module, weights: dict[str, Any], source: str) -> None:
    """``module.load_state_dict``, which loads all tensors or raises CheckpointError with the names that do not fit."""
    compare_tensors(module.state_dict(), weights, f"the weights in {source} do not fit this model")
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError, KeyError, AttributeError) as error:  # values that are no tensors
        raise CheckpointError(f"the weights in {source} do not fit this model: {_line(error, -1)}") from error


def compare_tensors(expected: dict[str, Any], found: dict[str, Any], claim: str) -> None:
    """Compare tensor names and shapes; raises CheckpointError with ``claim`` and the tensors that differ."""
    shape = lambda value: list(value.shape) if isinstance(value, torch.Tensor) else None  # noqa: E731
    problems = {
        "missing": sorted(expected.keys() - found.keys()),
        "unknown": sorted(found.keys() - expected.keys()),
        "wrongly shaped": [
            f"{name} {shape(found[name])} instead of {shape(expected[name])}"
            for name in sorted(expected.keys() & found.keys())
            if shape(expected[name]) != shape(found[name])
        ],
    }
    named = [
        f"{len(v)} {kind} ({', '.join(v[:3])}{', ...' if len(v) > 3 else ''})" for kind, v in problems.items() if v
    ]
    if named:
        raise CheckpointError(f"{claim}: {'; '.join(named)}")


def _line(error: Exception, which: int = 0) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[which].strip()[:200]
