"""Explicit streaming state: every causal part offers ``step(x, state) -> (y, state)``.

A state is a tensor, or a tuple of states; ``None`` starts a new stream. Nothing is kept inside the modules, so one
module can serve many streams, and a step can be exported with its state as inputs and outputs.
"""

from typing import Any

from torch import Tensor, nn

State = Any  # None | Tensor | tuple[State, ...]


def step(layer: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of ``layer``; a layer without ``step`` works on each sample alone (activations) and has no state."""
    if hasattr(layer, "step"):
        return layer.step(x, state)
    return layer(x), None


class Sequential(nn.Sequential):
    """``nn.Sequential`` that can also be run step by step; its state is the tuple of its layers' states."""

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        states = state if state is not None else (None,) * len(self)
        new = []
        for layer, old in zip(self, states, strict=True):
            x, s = step(layer, x, old)
            new.append(s)
        return x, tuple(new)
