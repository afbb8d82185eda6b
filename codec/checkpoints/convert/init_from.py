"""Initialisation of a codec from another run's checkpoint or from a published codec."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from codec.checkpoints.convert.published import load_any
from codec.checkpoints.convert.weight_norm import load_plain, plain_state
from codec.checkpoints.load import CheckpointError
from codec.layers.transformer import Transformer
from codec.model import Codec
from codec.quantizers.base import Continuous

log = logging.getLogger(__name__)
PARTS = {"encoder", "quantizer", "decoder"}
LEVELS = ("usage", "sums", "codebooks")  # buffers of an RVQ with a row for each codebook


def start_from(codec: Codec, source: str | Path, frozen: Sequence[str] = ()) -> None:
    """Copy the weights of ``source`` into ``codec``, which may have fewer codebooks, and weight norm or not.

    ``source`` is a checkpoint (.ckpt; EMA weights if it has them) or a published codec (``published.py``). Not
    initialised are a continuous bottleneck unlike that of ``source`` and, if some parts are ``frozen``, parts of
    another architecture, such as a new decoder for a frozen encoder. Raises CheckpointError if ``source`` cannot be
    read or its other parts have another architecture.
    """
    trained = load_any(source)
    weights, own = plain_state(trained), plain_state(codec)
    may_differ = PARTS - set(frozen) if frozen else {"quantizer"} if isinstance(codec.quantizer, Continuous) else set()
    fresh = {part for part in may_differ if _architecture(trained, part, weights) != _architecture(codec, part, own)}
    theirs, ours = _hyperparameters(trained), _hyperparameters(codec)
    for name in theirs:
        if name in ours and theirs[name] != ours[name] and name.partition(".")[0] not in fresh:
            raise CheckpointError(f"{source} has {name}={theirs[name]:g}, and this model {name}={ours[name]:g}")
    for part in sorted(fresh):
        log.warning("%s has another %s: this model's starts untrained", source, part)
    weights = {name: value for name, value in weights.items() if name.partition(".")[0] not in fresh}
    weights |= {name: value for name, value in own.items() if name.partition(".")[0] in fresh}
    for name in weights.keys() & own.keys():
        if name.rpartition(".")[2] in LEVELS:
            weights[name] = weights[name][: len(own[name])]
    load_plain(codec, weights, str(source))


def _architecture(codec: Codec, part: str, state: dict[str, Any]) -> tuple[type, dict[str, torch.Size]]:
    """Class of a part, and the shape of each of its parameters without weight norm."""
    names = {name for name, _ in codec.named_buffers()}
    shapes = {
        name: value.shape for name, value in state.items() if isinstance(value, torch.Tensor) and name not in names
    }
    return type(getattr(codec, part)), {name: shapes[name] for name in shapes if name.startswith(f"{part}.")}


def _hyperparameters(codec: Codec) -> dict[str, float]:
    """Hyperparameters that tensor shapes do not determine."""
    found = {"sample_rate": codec.sample_rate, "hop_length": codec.hop_length}
    for name, part in codec.named_modules():
        if isinstance(part, Transformer):
            own = {"heads": part.layers[0].heads, "context": part.context, "base": part.base}
            found |= {f"{name}.{key}": value for key, value in own.items()}
    return found
