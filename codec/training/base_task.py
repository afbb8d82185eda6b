"""What all trainings share: logging, clipping, and leaving out a step that is not finite."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from codec.training.optim import Optim, Single
from codec.training.resume import check_together


class BaseTask(lightning.LightningModule):
    """What the callbacks of a run (codec/training/callbacks/ema.py, codec/training/callbacks/nonfinite_guard.py ...)
    know of the module that is trained.

    Attributes:
        averaged: the name of the part whose parameters are averaged, saved and judged.
        suspects: ``[levels, B]`` bool after a pass; the first row with any says which examples are to blame.
        norms: of each side's gradient, before clipping.
        skipped: scalar after a step: 1.0 if the optimiser left it out.

    Args:
        optim: how it learns.
        config: the plain, resolved configuration that built the parts; it travels inside checkpoints, so that what was
            trained can be rebuilt from the checkpoint alone.
    """

    averaged: str

    def __init__(self, optim: Optim | Single, config: dict[str, Any] | None = None):
        super().__init__()
        self.optim, self.config = optim, config or {}
        self.suspects: Tensor | None = None
        self.norms: dict[str, Tensor] = {}
        self.skipped: Tensor | None = None

    @property
    def shown(self) -> dict[str, str]:
        """What the progress bar shows: label -> the name under which it is logged."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module]:
        """The parts that were built, by name."""
        raise NotImplementedError

    def seconds(self, batch: dict[str, Any]) -> float:
        """Seconds of audio in a batch."""
        raise NotImplementedError

    def kept(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a batch that show why training diverged on it."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        check_together(self.trainer.ckpt_path)
        for logger in self.loggers:
            logger.log_hyperparams(self.config)

    @property
    def logs(self) -> bool:
        """Whether Lightning writes out the values of the current step."""
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0

    @property
    def steps(self) -> int:
        """Of the whole training. Raises ValueError if it is not counted in steps."""
        if self.trainer.max_steps < 1:
            raise ValueError(
                "training is counted in steps: set max_steps to how many (max_epochs alone does not end it)"
            )
        return self.trainer.max_steps

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Each side by its own norm (``optim.*.clip``), not the Trainer's single number. With a norm that is not finite
        the optimiser leaves weights and moments as they are."""
        self.norms = self.optim.clip(optimizer)
        finite = torch.stack(list(self.norms.values())).isfinite().all() if self.norms else torch.ones((), dtype=bool)
        self.skipped = optimizer.found_inf = (~finite).float()  # what fused optimisers ask on the device
        if self.logs:
            self.log_dict({f"train/grad_norm/{name}": norm for name, norm in self.norms.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config
