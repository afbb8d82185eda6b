"""Interface of a loss, and all losses of a training run as one object.

A loss is a module: (target, estimate), both ``[B, 1, T]`` -> scalar, 0 for equal inputs, with finite gradients at
silence, and with spectra in fp32 under autocast.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from codec.losses.adversarial import Adversarial, FeatureMatching, Maps, reduce
from codec.losses.balancer import Balancer, Weighted

RESERVED = {"adversarial", "feature"}


class Losses(nn.Module):
    """Reconstruction terms, adversarial loss and feature matching, their weights, and how gradients are combined.

    Args:
        terms: reconstruction losses by name.
        weights: one for each term, "adversarial" and "feature"; a weight of 0 disables a loss.
        combine: from losses to one gradient at the waveform.
        commitment: weight of the quantizer's loss, applied by the training step.
        reconstruction_until: step from which on only discriminators train the codec (Mimi's adversarial-only training,
            arXiv 2410.00037, section 3.3.3, after a warm-up); None: never.
    """

    def __init__(
        self,
        terms: dict[str, nn.Module],
        adversarial: Adversarial,
        feature: FeatureMatching,
        weights: Mapping[str, float],
        combine: Weighted | Balancer,
        commitment: float = 1.0,
        reconstruction_until: int | None = None,
    ):
        super().__init__()
        _check_keys(set(terms), set(weights))
        self.terms = nn.ModuleDict(terms)
        self.adversarial, self.feature, self.weights, self.combine = adversarial, feature, dict(weights), combine
        self.combine.prepare(self.weights)
        self.commitment, self.reconstruction_until = commitment, reconstruction_until
        self.chance: float | None = None  # discriminator loss at chance level; None before the first discriminator step

    def reconstruction(self, target: Tensor, estimate: Tensor, step: int | None = None) -> dict[str, Tensor]:
        """``[B, 1, T]`` twice -> the terms that are active at this training step (None: all), unweighted."""
        if step is not None and self.reconstruction_until is not None and step >= self.reconstruction_until:
            return {}
        return {name: term(target, estimate) for name, term in self.terms.items()}

    def generator(self, real_maps: Maps, fake_maps: Maps) -> dict[str, Tensor]:
        """-> "adversarial" and "feature", unweighted; empty without discriminators."""
        if not fake_maps:
            return {}
        return {
            "adversarial": self.adversarial.generator(_logits(fake_maps)),
            "feature": self.feature(real_maps, fake_maps),
        }

    def discriminator(self, real_maps: Maps, fake_maps: Maps) -> Tensor:
        """-> loss of the discriminators; 0 without any."""
        if not real_maps:
            return torch.zeros(())
        self.chance = reduce([self.adversarial.chance] * len(real_maps), self.adversarial.reduction)
        return self.adversarial.discriminator(_logits(real_maps), _logits(fake_maps))

    def gradient(self, losses: Mapping[str, Tensor], estimate: Tensor) -> Tensor:
        """Losses of the leaf ``estimate`` ``[B, 1, T]`` -> their combined gradient ``[B, 1, T]``; keeps the graph."""
        with torch.autocast(estimate.device.type, enabled=False):  # spectra are fp32 in the backward pass, too
            return self.combine(losses, self.weights, estimate)


def _logits(maps: Maps) -> list[Tensor]:
    return [one[-1] for one in maps]


def _check_keys(terms: set[str], weights: set[str]) -> None:
    if taken := terms & RESERVED:
        raise ValueError(f"a loss term may not be called {' or '.join(sorted(taken))}: the discriminators' losses are")
    valid = terms | RESERVED
    if weights != valid:
        missing = ", ".join(sorted(valid - weights)) or "none"
        extra = ", ".join(sorted(weights - valid)) or "none"
        raise ValueError(
            f"the losses and their weights do not fit: weights missing for {missing}, weights without a loss: {extra}; "
            f"valid keys are {', '.join(sorted(valid))}"
        )
