"""Initialisation of a codec from another run's checkpoint or from a published Mimi."""

import logging
from pathlib import Path

import torch
from torch import nn

from codec.checkpoints.convert.mimi import import_mimi
from codec.checkpoints.convert.weight_norm import load_plain, plain_state
from codec.checkpoints.load import CheckpointError, load_codec
from codec.layers.transformer import Transformer
from codec.model import Codec
from codec.quantizers.base import Continuous

log = logging.getLogger(__name__)
LEVELS = ("usage", "sums", "codebooks")  # buffers of an RVQ with a row for each codebook


def start_from(codec: Codec, source: str | Path) -> None:
    """Copy the weights of ``source`` into ``codec``, which may have fewer codebooks, and weight norm or not.

    ``source`` is a checkpoint (.ckpt; EMA weights if it has them), or a Mimi file, folder or Hub id. If ``codec`` has a
    continuous bottleneck unlike that of ``source``, only encoder and decoder are initialised. Raises CheckpointError if
    ``source`` cannot be read or has another architecture.
    """
    trained = load_codec(source)[0] if str(source).endswith(".ckpt") else import_mimi(source)[0]
    theirs, ours = _hyperparameters(trained), _hyperparameters(codec)
    for name in theirs:
        if name in ours and theirs[name] != ours[name]:
            raise CheckpointError(f"{source} has {name}={theirs[name]:g}, and this model {name}={ours[name]:g}")
    weights = plain_state(trained)
    if isinstance(codec.quantizer, Continuous) and _shapes(trained.quantizer) != _shapes(codec.quantizer):
        log.warning("%s has another quantizer: only encoder and decoder begin with its weights", source)
        weights = {name: value for name, value in weights.items() if not name.startswith("quantizer.")}
        weights |= {f"quantizer.{name}": value for name, value in codec.quantizer.state_dict().items()}
    for name, own in codec.state_dict().items():
        if name.rpartition(".")[2] in LEVELS and name in weights:
            weights[name] = weights[name][: len(own)]
    load_plain(codec, weights, str(source))


def _shapes(part: nn.Module) -> tuple[type, list[torch.Size]]:
    return type(part), [value.shape for value in part.parameters()]


def _hyperparameters(codec: Codec) -> dict[str, float]:
    """Hyperparameters that tensor shapes do not determine."""
    found = {"sample_rate": codec.sample_rate, "hop_length": codec.hop_length}
    for name, part in codec.named_modules():
        if isinstance(part, Transformer):
            own = {"heads": part.layers[0].heads, "context": part.context, "base": part.base}
            found |= {f"{name}.{key}": value for key, value in own.items()}
    return found
