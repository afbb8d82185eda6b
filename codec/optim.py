"""Optimisation: one AdamW, a parameter group and a schedule for each side of the game."""

import math
from dataclasses import dataclass, field

import torch
from torch import nn


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
    """How one side learns. ``clip`` is the largest norm of its gradient; None does not clip."""

    lr: float
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.0
    clip: float | None = None


@dataclass(frozen=True)
class Optim:
    """AdamW with one group for the codec and one for the discriminators.

    Args:
        codec, disc: the two sides.
        schedule: (step, steps) -> factor on the learning rate; see :class:`Cosine`, :class:`Exponential`. That of the
            discriminators starts when they do.
    """

    codec: Side
    disc: Side
    schedule: Cosine | Exponential = field(default_factory=Cosine)

    def build(self, codec: nn.Module, disc: nn.Module, steps: int, disc_start: int):
        """-> (optimizer, scheduler stepped once per optimiser step). ``steps`` is the length of the whole training; the
        discriminators begin to learn at step ``disc_start``."""
        starts = {"codec": 0, "disc": disc_start}
        groups, factors = [], []
        for name, module, side in (("codec", codec, self.codec), ("disc", disc, self.disc)):
            parameters = [p for p in module.parameters() if p.requires_grad]
            if not parameters:
                continue
            options = dict(lr=side.lr, betas=tuple(side.betas), weight_decay=side.weight_decay)
            groups.append(dict(name=name, params=parameters, **options))
            start = starts[name]
            factors.append(lambda s, start=start: 0.0 if s < start else self.schedule(s - start, steps - start))
        optimizer = torch.optim.AdamW(groups, fused=True)  # one kernel; the plain loop is a tenth of a step on a CPU
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factors)

    def clip(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Clip each group's gradient to its own norm -> the norms before clipping, by group name."""
        norms = {}
        for group in optimizer.param_groups:
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if gradients:
                limit = getattr(self, group["name"]).clip
                norm = torch.nn.utils.get_total_norm(gradients)
                if limit is not None:
                    torch.nn.utils.clip_grads_with_norm_(group["params"], limit, norm)
                norms[group["name"]] = norm
        return norms
