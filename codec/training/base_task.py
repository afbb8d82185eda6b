"""The base of Lightning modules that are trained here: logging, clipping, and skipping steps that are not finite."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from codec.training.optim import OptimizerOptions
from codec.training.resume import check_same_step


class BaseTask(lightning.LightningModule):
    """What codec/training/callbacks/ relies on.

    Attributes:
        averaged: name of the submodule of which EMA averages, saves and evaluates the parameters.
        nonfinite: ``[B]`` bool after a forward pass: examples whose input or output is not finite.
        norms: gradient norm of each model before clipping.
        skipped: scalar after a step: 1.0 if the optimiser skipped it.

    Args:
        config: the plain, resolved configuration that built the parts. Checkpoints contain it, so that what was trained
            can be rebuilt from a checkpoint alone.
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
        """Of the progress bar: label -> name of a logged value."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module]:
        """The parts that were built, by name."""
        raise NotImplementedError

    def learners(self) -> dict[str, nn.Module]:
        """The models whose parameters are trained, by name."""
        raise NotImplementedError

    def starts(self) -> dict[str, int]:
        """The optimiser step at which a model begins to learn, where that is not 0."""
        return {}

    def seconds(self, batch: dict[str, Any]) -> float:
        """Seconds of audio in a batch."""
        raise NotImplementedError

    def dump(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a batch that are saved when training diverges on it."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        check_same_step(self.trainer.ckpt_path)
        for logger in self.loggers:
            logger.log_hyperparams(self.config)

    @property
    def logs(self) -> bool:
        """Whether Lightning writes out the values of the current step."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    @property
    def steps(self) -> int:
        """Length of the training. Raises ValueError if it is not counted in steps."""
        if self.trainer.max_steps < 1:
            raise ValueError("training is counted in steps: set max_steps (max_epochs alone does not end it)")
        return self.trainer.max_steps

    def configure_optimizers(self):
        optimizer, scheduler = self.optim.build(self.learners(), self.steps, self.starts())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def groups(self) -> list[str]:
        """The names of the optimiser's parameter groups, in order."""
        return [group["name"] for group in self.optim.build(self.learners(), 1)[0].param_groups]

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip each model's gradient by its own norm (``optim.*.clip``). If a norm is not finite, the fused optimiser
        changes neither weights nor moments."""
        self.norms = self.optim.clip(optimizer)
        finite = torch.stack(list(self.norms.values())).isfinite().all() if self.norms else torch.ones((), dtype=bool)
        self.skipped = optimizer.found_inf = (~finite).float()  # read by fused optimisers on the device
        if self.logs:
            self.log_dict({f"train/grad_norm/{name}": norm for name, norm in self.norms.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
