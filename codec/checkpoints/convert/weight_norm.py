"""A module's state without weight norm, and loading it into a module with or without weight norm."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from codec.checkpoints.load import load_weights
from codec.layers.conv import fold_weight_norm


def plain_state(module: nn.Module) -> dict[str, Any]:
    """The state of ``module``, with weight norm folded into the weights."""
    return _folded(module).state_dict()


def load_plain(module: nn.Module, weights: dict[str, Any], source: str) -> None:
    """Load the result of :func:`plain_state`.

    Args:
        weights: the state of a module of the same sizes, ``_extra_state`` included.
        source: of the weights, for the message.

    Raises:
        CheckpointError: names the missing, unknown and wrongly shaped tensors; nothing is loaded.
    """
    folded = _folded(module)
    load_weights(folded, weights, source)
    if folded is not module:
        own = module.state_dict().keys()
        module.load_state_dict({name: value for name, value in weights.items() if name in own}, strict=False)
        with torch.no_grad():
            for name, part in _normed(module):
                part.weight = weights[f"{name}.weight"].to(part.weight.device)  # to magnitude and direction
                direction = part.parametrizations.weight.original1
                zero = direction.flatten(1).abs().sum(1) == 0
                direction[zero] = 1.0  # their magnitude is 0: any direction but 0 / 0


def _normed(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in module.named_modules() if parametrize.is_parametrized(part, "weight")]


def _folded(module: nn.Module) -> nn.Module:
    """A copy without weight norm; the module itself if it has none."""
    return fold_weight_norm(copy.deepcopy(module)) if _normed(module) else module
