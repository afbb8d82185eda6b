"""One AdamW in which each model has its own learning rate, weight decay, gradient clipping and first step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from codec.layers.transformer import Transformer


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up over ``warmup`` steps, then a half cosine from 1 to ``final`` times the peak learning rate."""

    warmup: int = 0
    final: float = 0.0

    def __call__(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Exponential:
    """Linear warm-up, then factor ``gamma`` per ``every`` steps (UniAudio: 0.999 per epoch; DAC: 0.999996 per step)."""

    gamma: float = 1.0
    every: int = 1
    warmup: int = 0

    def __call__(self, step: int, steps: int) -> float:
        if step < self.warmup:
            return (step + 1) / self.warmup
        return self.gamma ** ((step - self.warmup) // self.every)


Schedule = Callable[[int, int], float]
"""(step, number of steps of the training) -> factor on the learning rate."""


@dataclass(frozen=True)
class ParameterGroup:
    """Options of AdamW for one model.

    Args:
        clip: maximum gradient norm of the model; None does not clip.
        decay: parameters with weight decay: "all", or "transformers", those of the transformers only (Mimi).
    """

    lr: float
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.0
    clip: float | None = None
    decay: str = "all"

    def __post_init__(self):
        if self.decay not in ("all", "transformers"):
            raise ValueError(f"decay is {self.decay!r}; valid are 'all' and 'transformers'")

    def split(self, name: str, module: nn.Module) -> list[dict]:
        """Parameter groups for torch: NAME, and NAME/transformers if only transformers have weight decay."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        options = dict(lr=self.lr, betas=tuple(self.betas))
        if self.decay == "all" or not self.weight_decay:
            groups = [dict(name=name, params=parameters, weight_decay=self.weight_decay, **options)]
        else:
            transformers = (part for part in module.modules() if isinstance(part, Transformer))
            decayed = {id(p) for part in transformers for p in part.parameters()}
            own = [p for p in parameters if id(p) in decayed]
            rest = [p for p in parameters if id(p) not in decayed]
            groups = [
                dict(name=name, params=rest, weight_decay=0.0, **options),
                dict(name=f"{name}/transformers", params=own, weight_decay=self.weight_decay, **options),
            ]
        return [group for group in groups if group["params"]]


class OptimizerOptions:
    """Builds AdamW with one or two parameter groups per model; subclasses map model names to options."""

    schedule: Schedule

    def of(self, name: str) -> ParameterGroup:
        """Options of the model with this name."""
        raise NotImplementedError

    def build(self, models: Mapping[str, nn.Module], steps: int, starts: Mapping[str, int] | None = None):
        """The optimiser, and a scheduler stepped once per optimiser step, for a training of ``steps`` steps.

        A model's learning rate is 0 before its step in ``starts`` (default 0), at which its schedule begins.
        """
        groups, factors = [], []
        for name, module in models.items():
            start = (starts or {}).get(name, 0)
            for group in self.of(name).split(name, module):
                groups.append(group)
                factors.append(lambda s, start=start: 0.0 if s < start else self.schedule(s - start, steps - start))
        optimizer = torch.optim.AdamW(groups, fused=True)  # one kernel; the plain loop is a tenth of a step on a CPU
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factors)

    def clip(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """Clip each model's gradient to its maximum norm; returns the norms before clipping, by name."""
        models: dict[str, list[nn.Parameter]] = {}
        for group in optimizer.param_groups:
            models.setdefault(group["name"].partition("/")[0], []).extend(group["params"])
        norms = {}
        for name, parameters in models.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                norms[name] = torch.nn.utils.get_total_norm(gradients)
                if self.of(name).clip is not None:
                    torch.nn.utils.clip_grads_with_norm_(parameters, self.of(name).clip, norms[name])
        return norms


@dataclass(frozen=True)
class AdversarialOptimizer(OptimizerOptions):
    """One set of options for codec and distillation, one for the discriminators (name ``disc``)."""

    codec: ParameterGroup
    disc: ParameterGroup
    schedule: Schedule = field(default_factory=Cosine)

    def of(self, name: str) -> ParameterGroup:
        return self.disc if name == "disc" else self.codec


@dataclass(frozen=True)
class SingleOptimizer(OptimizerOptions):
    """The same options for all models."""

    side: ParameterGroup
    schedule: Schedule = field(default_factory=Cosine)

    def of(self, name: str) -> ParameterGroup:
        return self.side
