"""The contract of a loss, and all losses of a run as one object, so that the training step names none.

Contract: an `nn.Module` called with (target, estimate), both `[B, 1, T]`, that returns a scalar; it computes
spectra in fp32 whatever autocast says, is 0 for equal inputs, and has finite gradients at silence.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from codec.losses.adversarial import Adversarial, FeatureMatching, Maps
from codec.losses.balancer import Balancer, Weighted


class Losses(nn.Module):
    """Reconstruction terms, adversarial loss and feature matching, their weights, and how to combine them.

    terms: losses by name. weights: one per term, plus "adversarial" and "feature"; a weight of 0 switches a
    loss off.
    commitment: weight of the quantizer's own loss, which does not pass through the waveform; the training
    step reads it.
    reconstruction_until: step from which on the terms teach no more, and the discriminators are left alone (Mimi's
    adversarial-only training, arXiv 2410.00037, section 3.3.3, after a warm-up); None: never.
    Raises ValueError where the keys of `terms` and `weights` do not fit each other.
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
        check_keys(set(terms), set(weights))
        self.terms = nn.ModuleDict(terms)
        self.adversarial, self.feature = adversarial, feature
        self.weights = dict(weights)
        self.combine = combine
        self.combine.prepare(self.weights)
        self.commitment, self.reconstruction_until = commitment, reconstruction_until
        self.chance: float | None = None  # the discriminators' loss while they tell nothing apart; None before they run

    def reconstruction(self, target: Tensor, estimate: Tensor, step: int | None = None) -> dict[str, Tensor]:
        """`[B, 1, T]` twice -> the terms by name that teach at this step of training (None: all), unweighted."""
        if step is not None and self.reconstruction_until is not None and step >= self.reconstruction_until:
            return {}
        return {name: term(target, estimate) for name, term in self.terms.items()}

    def generator(self, real_maps: Maps, fake_maps: Maps) -> dict[str, Tensor]:
        """-> "adversarial" and "feature", unweighted; nothing where there is no discriminator."""
        if not fake_maps:
            return {}
        return {
            "adversarial": self.adversarial.generator(logits(fake_maps)),
            "feature": self.feature(real_maps, fake_maps),
        }

    def discriminator(self, real_maps: Maps, fake_maps: Maps) -> Tensor:
        """-> scalar; 0 where there is no discriminator."""
        if not real_maps:
            return torch.zeros(())
        self.chance = self.adversarial.reduce([self.adversarial.chance] * len(real_maps))
        return self.adversarial.discriminator(logits(real_maps), logits(fake_maps))

    def gradient(self, losses: Mapping[str, Tensor], estimate: Tensor) -> Tensor:
        """Losses by name, of the leaf `estimate` `[B, 1, T]` -> their combined gradient `[B, 1, T]`; keeps
        the graph.
        """
        # Spectra were fp32 on the way here, and are on the way back.
        with torch.autocast(estimate.device.type, enabled=False):
            return self.combine(losses, self.weights, estimate)


def logits(maps: Maps) -> list[Tensor]:
    return [one[-1] for one in maps]


def check_keys(terms: set[str], weights: set[str]) -> None:
    reserved = {"adversarial", "feature"}
    if taken := terms & reserved:
        raise ValueError(f"A loss term may not be called {' or '.join(sorted(taken))}: the discriminators' losses are.")
    valid = terms | reserved
    if weights != valid:
        missing = ", ".join(sorted(valid - weights)) or "none"
        extra = ", ".join(sorted(weights - valid)) or "none"
        raise ValueError(
            f"The losses and their weights do not fit: weights missing for {missing}, weights without a "
            f"loss: {extra}; valid keys are {', '.join(sorted(valid))}."
        )
