"""Saving and loading of a module's state with weight norm folded into the weights."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from codec.checkpoints.load import load_weights
from codec.layers.conv import fold_weight_norm


def plain_state(module: nn.Module) -> dict[str, Any]:
    """The state dict of ``module`` with weight norm folded into the weights."""
    return _folded(module).state_dict()


def load_plain(module: nn.Module, weights: dict[str, Any], source: str) -> None:
    """Load a state without weight norm (:func:`plain_state`) into a module with or without weight norm.

    Raises CheckpointError, which names ``source``, if tensors are missing, unknown or of another shape.
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
    """A copy without weight norm, or the module itself if it has none."""
    return fold_weight_norm(copy.deepcopy(module)) if _normed(module) else module
