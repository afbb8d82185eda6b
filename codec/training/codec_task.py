"""Training a codec: the whole GAN step in one backward pass, under Lightning's automatic optimisation.

The reconstruction is cut into a leaf, ``estimate``. The discriminators run once on the recording and once on the leaf;
their own loss flows into their weights only (nothing else lies behind a leaf), and the gradient of the codec's losses
at the leaf is handed on to the codec as ``(out.wav * gradient).sum()``. One scalar, one backward pass, one optimiser
with a parameter group for each side; the gradients equal those of the usual two passes at the same weights
(tests/training/test_codec_task.py). The update is simultaneous, not alternating.

A step whose losses or gradients are not finite, in any process, is not taken
(codec/training/callbacks/nonfinite_guard.py counts them).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codec.discriminators.base import DiscriminatorSet
from codec.distillation.base import LatentLoss, Phones
from codec.losses.base import Losses
from codec.model import Codec
from codec.training.base_task import BaseTask
from codec.training.optim import Optim

LOUD = 10.0  # a sample beyond this is no sound in [-1, 1]


class CodecTask(BaseTask):
    """One training step, the optimiser, validation losses, and their logging.

    Args:
        codec, discriminators, losses, optim: the parts, built.
        adversarial_start: optimiser step at which the discriminators begin to run, to learn and to teach.
        codec_start: optimiser step at which the codec begins to learn. Before it, nothing of it moves, codebooks
            included, and fresh discriminators catch up with a codec that has been trained.
        distillation: what latents are taught besides, by a semantic teacher or by phones; None: no such thing.
        config: see :class:`codec.training.base_task.BaseTask`.

    Raises:
        InputError: if the quantizer has nothing of what the distillation wants to teach.
    """

    averaged = "codec"

    def __init__(
        self,
        codec: Codec,
        discriminators: DiscriminatorSet,
        losses: Losses,
        optim: Optim,
        adversarial_start: int = 0,
        codec_start: int = 0,
        distillation: LatentLoss | None = None,
        config: dict[str, Any] | None = None,
    ):
        super().__init__(optim, config)
        self.codec, self.discriminators, self.losses = codec, discriminators, losses
        if distillation is not None:
            distillation.attach(codec.quantizer)
        self.distillation = distillation
        self.adversarial_start, self.codec_start = adversarial_start, codec_start
        self.has_discriminators = any(True for _ in discriminators.parameters())

    @property
    def adversarial(self) -> bool:
        """Whether the discriminators take part at the current step."""
        return self.has_discriminators and self.global_step >= self.adversarial_start

    @property
    def shown(self) -> dict[str, str]:
        train = [*self.losses.weights, "disc", "audio_s_per_s"]
        return {name: f"train/{name}" for name in train} | {name: f"val/{name}" for name in ("pesq_wb", "stoi")}

    def parts(self) -> dict[str, nn.Module]:
        modules = {name: getattr(self.codec, name) for name in ("encoder", "quantizer", "decoder")}
        if self.distillation is not None:
            modules["teacher"] = self.distillation.teacher
        return modules | {f"discriminator {name}": part for name, part in self.discriminators.members.items()}

    def seconds(self, batch: dict[str, Any]) -> float:
        return batch["wav"].numel() / self.codec.sample_rate

    def kept(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"wav": batch["wav"]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        total, values = self.one_pass(batch["wav"], batch.get("phones"))
        if self.logs:
            self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=len(batch["wav"]))
        return {"loss": total, "values": values}

    def one_pass(self, wav: Tensor, phones: Phones | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """wav ``[B, 1, T]``, phones of each clip -> the scalar with every parameter's gradient, and the values to log.

        The scalar itself means nothing: ``(out.wav * gradient).sum()`` only carries a gradient. Where a loss is not
        finite, all gradients are NaN: the reduction over processes then tells all of them.
        """
        learning = self.global_step >= self.codec_start
        with torch.set_grad_enabled(learning):
            out = self.codec(wav)
        estimate = out.wav.detach().float().requires_grad_()
        losses = self.losses.reconstruction(wav, estimate, self.global_step)
        if self.adversarial:
            with parametrize.cached():  # weight norm is computed once for both passes
                real, fake = self.discriminators(wav), self.discriminators(estimate)
            losses |= self.losses.generator(real, fake)
            disc_loss = self.losses.discriminator(real, fake)
        else:
            disc_loss = nothing(self.discriminators)
        values = {name: value.detach() for name, value in losses.items()}
        taught = [value for name, value in values.items() if self.losses.weights[name]] + [disc_loss.detach()]
        total, signals = disc_loss, [wav, estimate.detach()]
        if learning:
            gradient = self.losses.gradient(losses, estimate)
            taught, signals = [*taught, out.quantized.loss.detach()], [*signals, gradient]
            total = total + (out.wav.float() * gradient).sum() + self.losses.commitment * out.quantized.loss
            values["commitment"] = out.quantized.loss.detach()
            values |= {f"share/{name}": share for name, share in self.losses.combine.shares.items()}
        else:
            total = total + nothing(self.codec)
        if self.distillation is not None:  # its projection learns while the codec waits
            student = self.distillation.select(out.latents, out.quantized.semantic, self.codec.quantizer)
            distilled = self.distillation(student, wav, phones)
            total = total + self.distillation.weight * distilled
            values["distill"] = distilled.detach()
            taught.append(values["distill"])
        self.suspects = suspects(signals)
        total = total * (1 + 0 * sum(taught))  # 1, or NaN
        values["disc"] = disc_loss.detach()
        values |= {f"quantizer/{name}": value for name, value in out.quantized.metrics.items()}
        return total, values

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Logs the reconstruction losses and returns the estimate ``[B, 1, T]`` for the callbacks that score and show
        it."""
        wav = batch["wav"]
        estimate = self.codec(wav).wav.float()
        losses = self.losses.reconstruction(wav, estimate)
        self.log_dict({f"val/loss/{name}": v for name, v in losses.items()}, batch_size=len(wav), sync_dist=True)
        return estimate

    def configure_optimizers(self):
        starts = self.adversarial_start, self.codec_start
        sides = self.codec, self.discriminators
        optimizer, scheduler = self.optim.build(*sides, self.steps, *starts, self.distillation)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def groups(self) -> list[str]:
        """The names of the optimiser's parameter groups, in order."""
        optimizer, _ = self.optim.build(self.codec, self.discriminators, 1, distillation=self.distillation)
        return [group["name"] for group in optimizer.param_groups]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Zeros would count as steps in Adam's bias correction, and its first real step would be ten times too long.
        waiting = [] if self.adversarial else [self.discriminators]
        waiting += [] if self.global_step >= self.codec_start else [self.codec]
        for p in (p for module in waiting for p in module.parameters()):
            p.grad = None


def suspects(signals: list[Tensor]) -> Tensor:
    """Recording, reconstruction and gradient of each clip, ``[B, 1, T]`` each -> ``[len(signals), B]`` bool: those that
    are not finite, or 20 dB above full scale where they are sound. The first row with any says whom to blame: one
    gradient that is not finite can spoil those of its batch."""
    peaks = torch.stack([signal.float().abs().amax((1, 2)) for signal in signals])
    limits = torch.full_like(peaks, torch.finfo(torch.float32).max)
    limits[:2] = LOUD
    return ~(peaks <= limits)


def nothing(module: nn.Module) -> Tensor:
    """0, with a gradient of zeros for every parameter: DDP wants to see each of them in every step."""
    return sum((0.0 * p.sum() for p in module.parameters()), torch.zeros(()))
