"""Explicit streaming state: every causal part offers ``step(x, state) -> (y, state)``.

A state is a tensor, or a tuple of states; ``None`` starts a new stream. Nothing is kept inside the modules, so one
module can serve many streams, and a step can be exported with its state as inputs and outputs: a state has one shape,
whatever the lengths of the chunks, and a state of zeros starts a new stream, too (not so in the forms for inference,
``codec/layers/inference.py``).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

State = Any  # None | Tensor | tuple[State, ...]


def step(layer: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of ``layer``; a layer without ``step`` works on each sample alone (activations) and has no state."""
    if hasattr(layer, "step"):
        return layer.step(x, state)
    return layer(x), None


def steps(layers: Iterable[nn.Module], x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of each layer in turn; the state is the tuple of their states."""
    layers = list(layers)
    new = []
    for layer, old in zip(layers, state if state is not None else (None,) * len(layers), strict=True):
        x, after = step(layer, x, old)
        new.append(after)
    return x, tuple(new)


class Sequential(nn.Sequential):
    """``nn.Sequential`` that can also be run step by step."""

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        return steps(self, x, state)


def in_pieces(part: nn.Module, x: Tensor, length: int) -> Tensor:
    """``part(x)``, where no gradient is wanted and the part can stream in pieces of ``length`` along the last axis.

    Memory then does not grow with x, and activations stay in the cache: long audio costs no more per second.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in part.parameters()))
    if wanted or x.shape[-1] <= length or not hasattr(part, "step"):
        return part(x)
    state, out = None, []
    for piece in x.split(length, dim=-1):
        y, state = part.step(piece, state)
        out.append(y)
    return torch.cat(out, dim=-1)
