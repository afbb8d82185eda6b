"""Exponential moving average of the weights."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn


class EMA(Callback):
    """Exponential moving average of the trained parameters (not buffers) of a submodule, the task's ``averaged``.

    Validation uses the averaged weights. Checkpoints store them as ``ema``, and the raw weights in state_dict.
    ``decay`` is per optimiser step, at most (1 + n) / (10 + n) at step n; skipped steps leave the average unchanged.
    """

    def __init__(self, decay: float = 0.999):
        self.decay = decay
        self.average: dict[str, torch.Tensor] | None = None
        self.last_step = -1
        self.swapped = False

    def on_fit_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        start = {name: p.detach().clone() for name, p in _averaged(task).named_parameters() if p.requires_grad}
        if self.average is not None:  # restored from a checkpoint, on the CPU
            start = {name: self.average[name].to(p.device, p.dtype) for name, p in start.items()}
        self.average = start

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self.last_step = trainer.global_step  # restored only now

    @torch.no_grad()
    def on_train_batch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self.last_step:  # gradients are still being accumulated
            return
        self.last_step = step
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(_averaged(task).named_parameters())
        averages = list(self.average.values())
        changes = torch._foreach_sub([parameters[name].detach() for name in self.average], averages)
        torch._foreach_mul_(changes, (1 - decay) * (1 - task.skipped))  # on the device, without synchronisation
        torch._foreach_add_(averages, changes)

    @torch.no_grad()
    def _swap(self, task: lightning.LightningModule, swapped: bool) -> None:
        if self.average is None or self.swapped == swapped:
            return
        parameters = dict(_averaged(task).named_parameters())
        for name, average in self.average.items():
            raw = parameters[name].detach().clone()
            parameters[name].copy_(average)
            average.copy_(raw)
        self.swapped = swapped

    def on_validation_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self._swap(task, True)

    def on_validation_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self._swap(task, False)

    def on_exception(self, trainer, task: lightning.LightningModule, exception: BaseException) -> None:
        self._swap(task, False)  # validation was interrupted

    def on_save_checkpoint(self, trainer, task, checkpoint: dict[str, Any]) -> None:
        if self.average is None:
            return
        if self.swapped:  # saved during validation: the model holds the average
            weights, average, part = checkpoint["state_dict"], self.average, task.averaged
            checkpoint["ema"] = {name: weights[f"{part}.{name}"] for name in average}
            weights.update({f"{part}.{name}": raw for name, raw in average.items()})
        else:
            checkpoint["ema"] = dict(self.average)

    def on_load_checkpoint(self, trainer, task, checkpoint: dict[str, Any]) -> None:
        self.average = checkpoint.get("ema")


def _averaged(task: lightning.LightningModule) -> nn.Module:
    return getattr(task, task.averaged)
