"""Training a codec: the whole GAN step in one backward pass, under Lightning's automatic optimisation.

The reconstruction is detached as a leaf, ``estimate``; ``(out.wav * gradient).sum()`` passes the gradient of the losses
at the leaf to the codec (docs/design.md). Codec and discriminators are updated simultaneously, not alternately.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from codec.discriminators.base import DiscriminatorSet
from codec.distillation.base import LatentLoss, PhoneBatch
from codec.losses.base import Losses
from codec.model import Codec
from codec.quantizers.base import Quantizer
from codec.training.base_task import BaseTask
from codec.training.optim import AdversarialOptimizer
from codec.utils.errors import InputError

CODEC_PARTS = ("encoder", "quantizer", "decoder")
LOUD = 10.0  # larger samples, more than 20 dB above full scale, count as not finite
PARTS = {"codec": "codec", "discriminators": "disc", "losses": "loss", "optim": "optim", "distillation": "distill"}
"""Argument of :class:`CodecTask` -> group of the configuration that builds it."""
STARTS = ("adversarial_start", "codec_start")  # arguments that are keys of the configuration


class CodecTask(BaseTask):
    """GAN training of a codec. Raises InputError if the quantizer lacks the latents that the distillation supervises.

    Args:
        adversarial_start: first optimiser step with discriminators and adversarial losses.
        codec_start: first optimiser step that updates the codec and its codebooks. Before it, fresh discriminators
            learn against a fixed, trained codec (fine-tuning).
        distillation: a loss on the latents, from a semantic teacher or from phones.
        freeze: parts of the codec, of "encoder", "quantizer" and "decoder", that do not change: no gradients, no
            codebook updates, no averages.
    """

    averaged = "codec"

    def __init__(
        self,
        codec: Codec,
        discriminators: DiscriminatorSet,
        losses: Losses,
        optim: AdversarialOptimizer,
        adversarial_start: int = 0,
        codec_start: int = 0,
        distillation: LatentLoss | None = None,
        freeze: Sequence[str] = (),
        config: dict[str, Any] | None = None,
    ):
        super().__init__(optim, config)
        self.codec, self.discriminators, self.losses = codec, discriminators, losses
        self.frozen = freeze_parts(codec, freeze)
        if distillation is not None and {"encoder", "quantizer"} <= set(self.frozen):
            raise InputError("distill= teaches latents, and freeze= holds encoder and quantizer: leave one of them out")
        if distillation is not None:
            distillation.attach(codec.quantizer)
        self.distillation = distillation
        self.adversarial_start, self.codec_start = adversarial_start, codec_start
        self.has_discriminators = any(True for _ in discriminators.parameters())

    @property
    def adversarial(self) -> bool:
        """Whether the discriminators run at the current step."""
        return self.has_discriminators and self.global_step >= self.adversarial_start

    @property
    def progress_metrics(self) -> dict[str, str]:
        train = [*self.losses.weights, "disc", "audio_s_per_s"]
        return {name: f"train/{name}" for name in train} | {name: f"val/{name}" for name in ("pesq_wb", "stoi")}

    def parts(self) -> dict[str, nn.Module]:
        modules = {name: getattr(self.codec, name) for name in CODEC_PARTS}
        if self.distillation is not None:
            modules["teacher"] = self.distillation.teacher
        return modules | {f"discriminator {name}": part for name, part in self.discriminators.members.items()}

    def learners(self) -> dict[str, nn.Module]:
        distillation = {} if self.distillation is None else {"distillation": self.distillation}
        return {"codec": self.codec, "disc": self.discriminators, **distillation}

    def starts(self) -> dict[str, int]:
        return {"codec": self.codec_start, "disc": self.adversarial_start}

    def seconds(self, batch: dict[str, Any]) -> float:
        return batch["wav"].numel() / self.codec.sample_rate

    def dump(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"wav": batch["wav"]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        total, values = self.one_pass(batch["wav"], batch.get("phones"))
        if "padding" in batch:
            values["padding"] = batch["padding"].mean()
        if self.logs:
            self.log_dict({f"train/{name}": value for name, value in values.items()}, batch_size=len(batch["wav"]))
        return {"loss": total, "values": values}

    def one_pass(self, wav: Tensor, phones: PhoneBatch | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """wav ``[B, 1, T]``, phones of each clip -> a scalar whose gradient trains all parameters, and values to log.

        Only the scalar's gradient has a meaning. If a loss is not finite, all gradients are NaN, with DDP on all ranks.
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
            disc_loss = zero(self.discriminators)
        values = {name: value.detach() for name, value in losses.items()}
        terms = [value for name, value in values.items() if self.losses.weights[name]] + [disc_loss.detach()]
        total = disc_loss
        if learning:
            gradient = self.losses.gradient(losses, estimate)
            terms.append(out.quantized.loss.detach())
            total = total + (out.wav.float() * gradient).sum() + self.losses.commitment * out.quantized.loss
            values["commitment"] = out.quantized.loss.detach()
            values |= {f"share/{name}": share for name, share in self.losses.combine.shares.items()}
        else:
            total = total + zero(self.codec)
        if self.distillation is not None:  # its projection learns before codec_start, too
            student = self.distillation.select(out.latents, out.quantized, self.codec.quantizer)
            distilled = self.distillation(student, wav, phones)
            total = total + self.distillation.weight * distilled
            values["distill"] = distilled.detach()
            terms.append(values["distill"])
        finite = [x.abs().amax((1, 2)) <= LOUD for x in (wav.float(), estimate.detach())]
        self.nonfinite = ~torch.stack([*finite, *([gradient.isfinite().flatten(1).all(1)] if learning else [])])
        total = total * (1 + 0 * sum(terms))  # 1, or NaN
        values["disc"] = disc_loss.detach()
        values |= {f"quantizer/{name}": value for name, value in out.quantized.metrics.items()}
        return total, values

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Log the reconstruction losses and return the estimate ``[B, 1, T]``, which callbacks use."""
        wav = batch["wav"]
        estimate = self.codec(wav).wav.float()
        losses = self.losses.reconstruction(wav, estimate)
        self.log_dict({f"val/loss/{name}": v for name, v in losses.items()}, batch_size=len(wav), sync_dist=True)
        return estimate

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # Zeros would count as steps in Adam's bias correction, and its first real step would be ten times too long.
        idle = [] if self.adversarial else [self.discriminators]
        idle += [] if self.global_step >= self.codec_start else [self.codec]
        for p in (p for module in idle for p in module.parameters()):
            p.grad = None


def freeze_parts(codec: Codec, names: Sequence[str]) -> list[str]:
    """Exclude parts of the codec from training; returns their names. Raises InputError if nothing would be trained."""
    if not isinstance(names, Sequence) or isinstance(names, str) or set(names) - set(CODEC_PARTS):
        raise InputError(f"freeze={names}, but it is a list of {', '.join(CODEC_PARTS)}: such as freeze=[encoder]")
    for module in (module for name in names for module in getattr(codec, name).modules()):
        for p in module.parameters(recurse=False):
            p.requires_grad_(False)
        if isinstance(module, Quantizer):
            module.learns = False
    if not any(p.requires_grad for p in codec.parameters()):
        raise InputError(f"freeze=[{','.join(names)}] leaves no parameter of the codec to train: freeze fewer parts")
    return list(names)


def zero(module: nn.Module) -> Tensor:
    """0, with a zero gradient for every parameter, as DDP needs a gradient of each in every step."""
    return sum((0.0 * p.sum() for p in module.parameters()), torch.zeros(()))
