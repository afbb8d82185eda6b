"""Training a flow model: one step, and a validation loss on noise, times and spans that never change."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from codec.flow.model import FlowModel
from codec.flow.objective import on_path
from codec.flow.repa import Alignment
from codec.training.base_task import BaseTask
from codec.training.optim import SingleOptimizer
from codec.utils.distributed import mean_over_ranks


class FlowTask(BaseTask):
    """Batches are those of :class:`codec.flow.datamodule.LatentData`.

    A step whose loss or gradient is not finite, in any process, is not taken
    (codec/training/callbacks/nonfinite_guard.py).

    Args:
        flow: the model.
        optim: how it learns.
        drop: share of the examples that are told nothing and see nothing but their span: the free side of guidance.
        drop_context: share of those that are told, but see nothing but their span.
        config: see :class:`codec.training.base_task.BaseTask`.
        alignment: what draws hidden states towards ``features`` ``[B, C', F]`` of a batch, in training; None: nothing.

    Raises:
        ValueError: if the shares are none.
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
        alignment: Alignment | None = None,
    ):
        super().__init__(optim, config)
        if min(drop, drop_context) < 0 or drop + drop_context > 1:
            raise ValueError(f"drop={drop} and drop_context={drop_context} are shares, and together 1 at most")
        self.flow, self.drop, self.drop_context = flow, drop, drop_context
        self.alignment = alignment

    def parts(self) -> dict[str, nn.Module]:
        conditions = {f"condition {name}": part for name, part in self.flow.condition.members.items()}
        beside = {} if self.alignment is None else {"alignment": self.alignment}
        return {"network": self.flow.network, **conditions, "objective": self.flow.objective, **beside}

    def seconds(self, batch: dict[str, Any]) -> float:
        examples, _, frames = batch["latents"].shape  # padding counts: nobody waits for the device to say how much
        return examples * frames / self.flow.frame_rate

    def dump(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"latents": batch["latents"], "span": batch["span"]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        x1 = batch["latents"]
        dropped, u = torch.rand(2, len(x1), device=x1.device)
        shares = dropped >= self.drop, dropped >= self.drop + self.drop_context
        total, values = self.one_pass(batch, torch.randn_like(x1), self.flow.objective.times(u), *shares)
        if self.logs:
            self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=len(x1))
        return {"loss": total, "values": values}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs the losses of all conditions and of all that is known, at times spread evenly."""
        x1 = batch["latents"]
        generator = torch.Generator().manual_seed(batch_idx)
        noise = torch.randn(x1.shape, generator=generator).to(x1)
        t = ((torch.randperm(len(x1), generator=generator) + 0.5) / len(x1)).to(x1)
        all_of_it = torch.ones_like(t, dtype=torch.bool)
        values = self.one_pass(batch, noise, t, all_of_it, all_of_it)[1]
        self.log_dict(
            {f"val/{name}": value for name, value in values.items()},
            batch_size=int(batch["span"].sum()),
            sync_dist=True,
        )

    def one_pass(
        self, batch: dict[str, Any], x0: Tensor, t: Tensor, keep: Tensor, seen: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A batch of latents ``[B, C, F]`` -> the loss over its spans, and the values to log.

        Args:
            x0: ``[B, C, F]``, noise.
            t: ``[B]``.
            keep, seen: ``[B]`` bool: which examples are told what is given, and which see what is known.
        """
        x1, flow = batch["latents"], self.flow
        inside = torch.arange(x1.shape[-1], device=x1.device) < batch["lengths"][:, None]
        span = batch["span"] & inside
        given = flow.condition(batch, inside).kept(keep)
        aligned = self.alignment is not None and self.training  # validation is about the model alone
        with self.alignment.listening(flow.network) if aligned else nullcontext() as heard:
            output = flow(on_path(x1, x0, t), t, x1, span, inside, given, seen)
        (count,), losses, total = mean_over_ranks([span.sum().float()]), {}, 0.0
        of_examples = torch.zeros(len(x1), device=x1.device)
        for name, errors in flow.objective.errors(output, x1, x0, t, batch.get("codes")).items():
            of_examples = of_examples + (errors * span).sum(1)
            losses[name] = (errors * span).sum() / count
            total = total + flow.objective.weights[name] * losses[name]
        self.nonfinite = ~(x1.isfinite().all(2).all(1) & of_examples.detach().isfinite())
        values = {"loss": total} | losses
        if aligned:
            values["alignment"] = self.alignment(heard[0], batch["features"], inside)
            total = total + self.alignment.weight * values["alignment"]
        total = total * (1 + 0 * total.detach())  # 1, or NaN for all parameters
        return total, {name: value.detach() for name, value in values.items()}

    def learners(self) -> dict[str, nn.Module]:
        """Whose parameters learn, by name."""
        return {"flow": self.flow} | ({} if self.alignment is None else {"alignment": self.alignment})
