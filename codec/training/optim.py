"""Optimisation: one AdamW, parameter groups and a schedule for each side of the game, or for the only one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from codec.layers.transformer import Transformer


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up over ``warmup`` steps, then half a cosine that ends at ``final``, a share of the peak."""

    warmup: int = 0
    final: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Exponential:
    """Linear warm-up, then ``gamma`` every ``every`` steps (UniAudio: 0.999 per epoch; DAC: 0.999996 per step)."""

    gamma: float = 1.0
    every: int = 1
    warmup: int = 0

    def __call__(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        return self.gamma ** ((step - self.warmup) // self.every)


@dataclass(frozen=True)
class Side:
    """How one side learns.

    Args:
        weight_decay: of all parameters, or, with decay="transformers", of those of the transformers only (Mimi).
        clip: the largest norm of the side's gradient; None does not clip.
    """

    lr: float
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.0
    clip: float | None = None
    decay: str = "all"

    def __post_init__(self):
        if self.decay not in ("all", "transformers"):
            raise ValueError(f"decay is {self.decay!r}; valid are 'all' and 'transformers'")

    def groups(self, name: str, module: nn.Module) -> list[dict]:
        """The side's parameter groups: one, or two where only some parameters decay."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        options = dict(side=name, lr=self.lr, betas=tuple(self.betas))
        if self.decay == "all" or not self.weight_decay:
            groups = [dict(name=name, params=parameters, weight_decay=self.weight_decay, **options)]
        else:
            found = (part for part in module.modules() if isinstance(part, Transformer))
            decayed = {id(p) for part in found for p in part.parameters()}
            rest = [p for p in parameters if id(p) not in decayed]
            decayed = [p for p in parameters if id(p) in decayed]
            groups = [
                dict(name=name, params=rest, weight_decay=0.0, **options),
                dict(name=f"{name}/transformers", params=decayed, weight_decay=self.weight_decay, **options),
            ]
        return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class Optim:
    """AdamW with parameter groups for the codec and for the discriminators.

    Args:
        codec, disc: the two sides.
        schedule: (step, steps) -> factor on the learning rate; see :class:`Cosine`, :class:`Exponential`. That of a
            side starts when the side does.
    """

    codec: Side
    disc: Side
    schedule: Cosine | Exponential = field(default_factory=Cosine)

    def build(
        self,
        codec: nn.Module,
        disc: nn.Module,
        steps: int,
        disc_start: int = 0,
        codec_start: int = 0,
        distillation: nn.Module | None = None,
    ):
        """-> (optimizer, scheduler stepped once per optimiser step).

        Args:
            steps: length of the whole training; the sides begin to learn at ``codec_start`` and ``disc_start``.
            distillation: what a teacher adds; it learns as the codec does, but from the beginning.
        """
        parts = [("codec", codec, codec_start), ("disc", disc, disc_start)]
        parts += [("distillation", distillation, 0)] if distillation is not None else []
        return _adamw([(name, self.side(name), module, start) for name, module, start in parts], self.schedule, steps)

    def side(self, name: str) -> Side:
        return self.disc if name == "disc" else self.codec

    def clip(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Clip each side's gradient to its own norm -> the norms before clipping, by side."""
        return _clip(optimizer, self.side)


@dataclass(frozen=True)
class Single:
    """AdamW where all learn alike."""

    side: Side
    schedule: Cosine | Exponential = field(default_factory=Cosine)

    def build(self, modules: Mapping[str, nn.Module], steps: int):
        """-> (optimizer, scheduler stepped once per optimiser step) of a training of so many steps; each module has
        parameter groups of its own."""
        return _adamw([(name, self.side, module, 0) for name, module in modules.items()], self.schedule, steps)

    def clip(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Clip the gradient of each module to its own norm -> the norms before clipping, by name."""
        return _clip(optimizer, lambda name: self.side)


def _adamw(parts: list[tuple[str, Side, nn.Module, int]], schedule: Cosine | Exponential, steps: int):
    """Of (name, how it learns, what, from which step on)."""
    groups, factors = [], []
    for name, side, module, start in parts:
        for group in side.groups(name, module):
            groups.append(group)
            factors.append(lambda s, start=start: 0.0 if s < start else schedule(s - start, steps - start))
    optimizer = torch.optim.AdamW(groups, fused=True)  # one kernel; the plain loop is a tenth of a step on a CPU
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def _clip(optimizer: torch.optim.Optimizer, side: Callable[[str], Side]) -> dict[str, torch.Tensor]:
    norms = {}
    for name in dict.fromkeys(group["side"] for group in optimizer.param_groups):
        parameters = [p for group in optimizer.param_groups if group["side"] == name for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            if side(name).clip is not None:
                torch.nn.utils.clip_grads_with_norm_(parameters, side(name).clip, norm)
            norms[name] = norm
    return norms
