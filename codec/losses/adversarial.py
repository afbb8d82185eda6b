"""Adversarial losses of the discriminators' logits, and feature matching of their other maps.

Hinge: Lim and Ye, arXiv 1705.02894; least squares: Mao et al., arXiv 1611.04076; feature matching: MelGAN, arXiv
1910.06711, section 2.3. ``reduction`` is over sub-discriminators: "mean" as in SoundStream, EnCodec and UniAudio, so
that weights do not depend on the set; "sum" as in HiFi-GAN and DAC (for features, over maps as well).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.utils.distributed import mean_over_ranks

Logits = list[Tensor]
Maps = list[list[Tensor]]


def reduce(losses: list[Tensor], reduction: str) -> Tensor:
    return sum(losses) / (len(losses) if reduction == "mean" else 1)


def check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, got {reduction!r}")


class Adversarial(nn.Module):
    """Interface of an adversarial loss: subclasses define those of one sub-discriminator, each logits -> scalar."""

    chance: float  # least discriminator loss for logits that do not depend on the input

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def real_loss(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def fake_loss(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def generator_loss(self, logits: Tensor) -> Tensor:
        raise NotImplementedError

    def discriminator(self, real: Logits, fake: Logits) -> Tensor:
        """Loss of the discriminators; one tensor of any shape per sub-discriminator in both lists."""
        pairs = zip(real, fake, strict=True)
        return reduce([self.real_loss(r.float()) + self.fake_loss(f.float()) for r, f in pairs], self.reduction)

    def generator(self, fake: Logits) -> Tensor:
        """Loss of the generator."""
        return reduce([self.generator_loss(f.float()) for f in fake], self.reduction)


class Hinge(Adversarial):
    """max(0, 1 - real) + max(0, 1 + fake) for the discriminator; for the generator -fake (audiocraft), or, ``clipped``,
    max(0, 1 - fake) (the papers of SoundStream and EnCodec)."""

    chance = 2.0

    def __init__(self, reduction: str = "mean", clipped: bool = False):
        super().__init__(reduction)
        self.clipped = clipped

    def real_loss(self, logits: Tensor) -> Tensor:
        return F.relu(1 - logits).mean()

    def fake_loss(self, logits: Tensor) -> Tensor:
        return F.relu(1 + logits).mean()

    def generator_loss(self, logits: Tensor) -> Tensor:
        return self.real_loss(logits) if self.clipped else -logits.mean()


class LeastSquares(Adversarial):
    """(1 - real)^2 + fake^2 for the discriminator, (1 - fake)^2 for the generator."""

    chance = 0.5

    def real_loss(self, logits: Tensor) -> Tensor:
        return (1 - logits).square().mean()

    def fake_loss(self, logits: Tensor) -> Tensor:
        return logits.square().mean()

    def generator_loss(self, logits: Tensor) -> Tensor:
        return self.real_loss(logits)


class MeanAbsoluteDifference(torch.autograd.Function):
    """mean |fake - real|, summed in fp32 or better, with a gradient for ``fake``.

    Maps are the largest tensors of a step: this needs two of their size, autograd four.
    """

    @staticmethod
    def forward(ctx, fake: Tensor, real: Tensor) -> Tensor:
        difference = fake - real
        ctx.save_for_backward(difference)
        dtype = torch.promote_types(difference.dtype, torch.float32)
        return torch.linalg.vector_norm(difference, 1, dtype=dtype) / difference.numel()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference.sign().mul_(gradient / difference.numel()), None


class FeatureMatching(nn.Module):
    """L1 between the maps of recordings and outputs, without the logits; no gradient for the maps of recordings.

    ``normalize``: divide the distance of each map by the mean magnitude of the real map over the batch of all ranks
    (EnCodec, arXiv 2210.13438). ``reduction``: over the maps of a sub-discriminator, then over sub-discriminators.
    """

    def __init__(self, normalize: bool = True, reduction: str = "mean"):
        super().__init__()
        check_reduction(reduction)
        self.normalize, self.reduction = normalize, reduction

    def forward(self, real_maps: Maps, fake_maps: Maps) -> Tensor:
        real_maps = [[one.detach() for one in maps[:-1]] for maps in real_maps]
        scales = iter(self._magnitudes(real_maps))
        losses = []
        for real, fake in zip(real_maps, fake_maps, strict=True):
            pairs = zip(real, fake[:-1], strict=True)
            losses.append(reduce([MeanAbsoluteDifference.apply(f, r) / next(scales) for r, f in pairs], self.reduction))
        return reduce(losses, self.reduction)

    def _magnitudes(self, real_maps: Maps) -> list[Tensor | int]:
        maps = [one for each in real_maps for one in each]
        if not self.normalize:
            return [1] * len(maps)
        means = [one.abs().mean(dtype=torch.promote_types(one.dtype, torch.float32)) for one in maps]
        return [mean.clamp(min=1e-5) for mean in mean_over_ranks(means)]
