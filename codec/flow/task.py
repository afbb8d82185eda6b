"""Training of a flow model: the training step, and a validation loss at fixed noise, times and spans."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from codec.flow.model import FlowModel
from codec.flow.objective import on_path
from codec.flow.repa import RepaLoss
from codec.training.base_task import BaseTask
from codec.training.optim import SingleOptimizer
from codec.utils.distributed import mean_over_ranks


class FlowTask(BaseTask):
    """LightningModule that trains a flow model on batches of :class:`codec.flow.datamodule.LatentData`.

    A step whose loss or gradient is not finite on any rank is skipped (codec/training/callbacks/nonfinite_guard.py).

    Args:
        drop: share of the examples without conditioning and context, for classifier-free guidance.
        drop_context: share of the examples with conditioning and without context.
        alignment: the REPA loss, which needs ``features`` ``[B, C', F]`` in training batches; None: without.
    """

    averaged = "flow"
    progress_metrics = {"loss": "train/loss", "audio_s_per_s": "train/audio_s_per_s", "val": "val/loss"}  # noqa: RUF012

    def __init__(
        self,
        flow: FlowModel,
        optim: SingleOptimizer,
        drop: float = 0.15,
        drop_context: float = 0.15,
        config: dict[str, Any] | None = None,
        alignment: RepaLoss | None = None,
    ):
        super().__init__(optim, config)
        if min(drop, drop_context) < 0 or drop + drop_context > 1:
            raise ValueError(f"drop={drop} and drop_context={drop_context} are shares, and together 1 at most")
        self.flow, self.drop, self.drop_context = flow, drop, drop_context
        self.alignment = alignment  # its name in stored checkpoints

    def parts(self) -> dict[str, nn.Module]:
        conditions = {f"condition {name}": part for name, part in self.flow.condition.members.items()}
        repa = {} if self.alignment is None else {"alignment": self.alignment}
        return {"network": self.flow.network, **conditions, "objective": self.flow.objective, **repa}

    def seconds(self, batch: dict[str, Any]) -> float:
        examples, _, frames = batch["latents"].shape  # with padding, whose amount only the device knows
        return examples * frames / self.flow.frame_rate

    def dump(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"latents": batch["latents"], "span": batch["span"]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        x1 = batch["latents"]
        dropped, u = torch.rand(2, len(x1), device=x1.device)
        conditional, show_context = dropped >= self.drop, dropped >= self.drop + self.drop_context
        t = self.flow.objective.times(u)
        total, values = self.one_pass(batch, torch.randn_like(x1), t, conditional, show_context)
        if self.logs:
            self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=len(x1))
        return {"loss": total, "values": values}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs the losses with all conditioning and context, at evenly spaced t."""
        x1 = batch["latents"]
        generator = torch.Generator().manual_seed(batch_idx)
        noise = torch.randn(x1.shape, generator=generator).to(x1)
        t = ((torch.randperm(len(x1), generator=generator) + 0.5) / len(x1)).to(x1)
        everything = torch.ones_like(t, dtype=torch.bool)
        values = self.one_pass(batch, noise, t, everything, everything)[1]
        self.log_dict(
            {f"val/{name}": value for name, value in values.items()},
            batch_size=int(batch["span"].sum()),
            sync_dist=True,
        )

    def one_pass(
        self, batch: dict[str, Any], x0: Tensor, t: Tensor, conditional: Tensor, show_context: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of latents ``[B, C, F]``, a mean over frames in spans, and the values to log.

        Args:
            x0: noise ``[B, C, F]``.
            t: ``[B]`` in (0, 1).
            conditional, show_context: ``[B]`` bool, examples with conditioning, and those with visible context.
        """
        x1, flow = batch["latents"], self.flow
        valid = torch.arange(x1.shape[-1], device=x1.device) < batch["lengths"][:, None]
        span = batch["span"] & valid
        embeddings = flow.condition(batch, valid).where(conditional)
        with_repa = self.alignment is not None and self.training  # validation is of the model alone
        with self.alignment.capture(flow.network) if with_repa else nullcontext() as hidden:
            output = flow(on_path(x1, x0, t), t, x1, span, valid, embeddings, show_context)
        (count,), losses, total = mean_over_ranks([span.sum().float()]), {}, 0.0
        per_example = torch.zeros(len(x1), device=x1.device)
        for name, errors in flow.objective.errors(output, x1, x0, t, batch.get("codes")).items():
            per_example = per_example + (errors * span).sum(1)
            losses[name] = (errors * span).sum() / count
            total = total + flow.objective.weights[name] * losses[name]
        self.nonfinite = ~torch.stack([x1.isfinite().flatten(1).all(1), per_example.detach().isfinite()])
        values = {"loss": total} | losses
        if with_repa:
            values["alignment"] = self.alignment(hidden[0], batch["features"], valid)
            total = total + self.alignment.weight * values["alignment"]
        total = total * (1 + 0 * total.detach())  # 1, or NaN for all parameters
        return total, {name: value.detach() for name, value in values.items()}

    def learners(self) -> dict[str, nn.Module]:
        return {"flow": self.flow} | ({} if self.alignment is None else {"alignment": self.alignment})
