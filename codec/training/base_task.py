"""Base of the Lightning modules: optimiser, gradient clipping, skipped steps, and the configuration in checkpoints."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from codec.training.optim import OptimizerOptions
from codec.training.resume import check_same_step
from codec.utils.errors import InputError


class BaseTask(lightning.LightningModule):
    """Base class of the trained Lightning modules, with the interface that codec/training/callbacks/ uses.

    Attributes:
        averaged: name of the submodule whose parameters EMA averages.
        nonfinite: ``[L, B]`` bool after a forward pass: examples whose input, output, ... is not finite, cause first.
        norms: gradient norm of each model before clipping.
        skipped: scalar after a step: 1.0 if the optimiser skipped it.
        config: resolved configuration, stored in checkpoints, from which the model can be rebuilt.
    """

    averaged: str

    def __init__(self, optim: OptimizerOptions, config: dict[str, Any] | None = None):
        super().__init__()
        self.optim, self.config = optim, config or {}
        self.nonfinite: Tensor | None = None
        self.norms: dict[str, Tensor] = {}
        self.skipped: Tensor | None = None

    @property
    def progress_metrics(self) -> dict[str, str]:
        """Label in the progress bar -> name of a logged value."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module]:
        """The configurable modules, by name; ``parts.json`` lists them."""
        raise NotImplementedError

    def learners(self) -> dict[str, nn.Module]:
        """The trained models, by name, each with its own optimiser options."""
        raise NotImplementedError

    def starts(self) -> dict[str, int]:
        """Optimiser step at which a model begins to learn, by name; 0 for models not named."""
        return {}

    def seconds(self, batch: dict[str, Any]) -> float:
        """Seconds of audio in a batch."""
        raise NotImplementedError

    def dump(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a batch to save if training diverges on it."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        check_same_step(self.trainer.ckpt_path)
        for logger in self.loggers:
            logger.log_hyperparams(self.config)

    @property
    def logs(self) -> bool:
        """Whether Lightning logs the current step."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    @property
    def steps(self) -> int:
        """Number of optimiser steps of the whole training."""
        if self.trainer.max_steps < 1:
            raise InputError("training is counted in steps: set max_steps (max_epochs alone does not end it)")
        return self.trainer.max_steps

    def configure_optimizers(self):
        optimizer, scheduler = self.optim.build(self.learners(), self.steps, self.starts())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def groups(self) -> list[str]:
        """The names of the optimiser's parameter groups, in order."""
        return [group["name"] for group in self.optim.build(self.learners(), 1)[0].param_groups]

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip each model's gradient by its own norm. If any norm is not finite, the optimiser skips the step."""
        self.norms = self.optim.clip(optimizer)
        finite = torch.stack(list(self.norms.values())).isfinite().all() if self.norms else torch.ones((), dtype=bool)
        self.skipped = optimizer.found_inf = (~finite).float()  # read by fused optimisers on the device
        if self.logs:
            self.log_dict({f"train/grad_norm/{name}": norm for name, norm in self.norms.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
