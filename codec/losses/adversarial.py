"""Adversarial losses on the discriminators' logits, and feature matching on their other maps.

Hinge: Lim and Ye, arXiv 1705.02894; least squares: Mao et al., arXiv 1611.04076; feature matching: MelGAN,
arXiv 1910.06711, section 2.3. `reduction` is over sub-discriminators: "mean" as in SoundStream, EnCodec and
UniAudio, so that weights survive a change of the set; "sum" as in HiFi-GAN and DAC, over maps too.
"""

import itertools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.utils.distributed import mean_over_ranks

Logits = list[Tensor]
Maps = list[list[Tensor]]


class Adversarial(nn.Module):
    """The contract: a subclass gives `real`, `fake` and `fool`, each one tensor of logits -> scalar, and `chance`, the
    least that a sub-discriminator pays who says the same of everything."""

    chance: float

    def __init__(self, reduction: str = "mean"):
        super().__init__()
        self.reduction = checked(reduction)

    def discriminator(self, real: Logits, fake: Logits) -> Tensor:
        """What the discriminators minimise; both lists have one tensor of any shape per sub-discriminator."""
        pairs = zip(real, fake, strict=True)
        return self.reduce([self.real(r.float()) + self.fake(f.float()) for r, f in pairs])

    def generator(self, fake: Logits) -> Tensor:
        """What the generator minimises."""
        return self.reduce([self.fool(f.float()) for f in fake])

    def reduce(self, losses: list[Tensor]) -> Tensor:
        return sum(losses) / (len(losses) if self.reduction == "mean" else 1)


class Hinge(Adversarial):
    """max(0, 1 - real) + max(0, 1 + fake); the generator minimises -fake."""

    chance = 2.0

    def real(self, logits: Tensor) -> Tensor:
        return F.relu(1 - logits).mean()

    def fake(self, logits: Tensor) -> Tensor:
        return F.relu(1 + logits).mean()

    def fool(self, logits: Tensor) -> Tensor:
        return -logits.mean()


class LeastSquares(Adversarial):
    """(1 - real)^2 + fake^2; the generator minimises (1 - fake)^2."""

    chance = 0.5

    def real(self, logits: Tensor) -> Tensor:
        return (1 - logits).square().mean()

    def fake(self, logits: Tensor) -> Tensor:
        return logits.square().mean()

    def fool(self, logits: Tensor) -> Tensor:
        return self.real(logits)


class MeanAbsoluteDifference(torch.autograd.Function):
    """mean |fake - real| as a scalar of fp32 or better, with a gradient for `fake`.

    The maps are the largest tensors of a step: this keeps one of their size and makes one more for the gradient, where
    autograd would make four; sums are in fp32 without an fp32 copy.
    """

    @staticmethod
    def forward(ctx, fake: Tensor, real: Tensor) -> Tensor:
        difference = fake - real
        ctx.save_for_backward(difference)
        return torch.linalg.vector_norm(difference, 1, dtype=wide(difference)) / difference.numel()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference.sign().mul_(gradient / difference.numel()), None


class FeatureMatching(nn.Module):
    """L1 between the maps of real and generated sound, without the logits; the real side gets no gradient.

    normalize: divide each map's distance by the real map's mean magnitude (EnCodec, arXiv 2210.13438):
    a layer's scale then does not decide its weight. The mean is over the batch of all processes.
    """

    def __init__(self, normalize: bool = True, reduction: str = "mean"):
        super().__init__()
        self.normalize = normalize
        self.reduction = checked(reduction)

    def forward(self, real_maps: Maps, fake_maps: Maps) -> Tensor:
        """-> scalar; the mean is over the maps of a sub-discriminator, then over sub-discriminators."""
        real_maps = [[one.detach() for one in maps[:-1]] for maps in real_maps]
        sizes = iter(self.sizes(real_maps))
        losses = []
        for real, fake in zip(real_maps, fake_maps, strict=True):
            distances = [MeanAbsoluteDifference.apply(f, r) / next(sizes) for r, f in zip(real, fake[:-1], strict=True)]
            losses.append(sum(distances) / (len(distances) if self.reduction == "mean" else 1))
        return sum(losses) / (len(losses) if self.reduction == "mean" else 1)

    def sizes(self, real_maps: Maps) -> Iterable[Tensor | int]:
        """What the distance of each map is divided by."""
        if not self.normalize:
            return itertools.repeat(1)
        means = [one.abs().mean(dtype=wide(one)) for maps in real_maps for one in maps]
        return [mean.clamp(min=1e-5) for mean in mean_over_ranks(means)]


def wide(x: Tensor) -> torch.dtype:
    """In which to sum: fp32 or better."""
    return torch.promote_types(x.dtype, torch.float32)


def checked(reduction: str) -> str:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, got {reduction!r}.")
    return reduction
