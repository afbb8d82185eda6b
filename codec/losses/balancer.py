"""Two ways to combine losses of one waveform into one gradient at that waveform.

``combine(losses, weights, estimate) -> gradient``, shaped like ``estimate``; ``shares`` then has a detached scalar for
each loss, for logging. ``prepare(names)`` is called once, before a checkpoint is loaded.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, autograd, nn

from codec.utils.distributed import mean_over_ranks, world_size


class Weighted(nn.Module):
    """The gradient of the weighted sum, in one backward pass; ``shares`` are |w L| / sum |w L|."""

    def __init__(self):
        super().__init__()
        self.shares: dict[str, Tensor] = {}

    def prepare(self, names: Iterable[str]) -> None:
        """Nothing: there is no state."""

    def forward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], estimate: Tensor) -> Tensor:
        active = active_losses(losses, weights)
        if not active:
            return torch.zeros_like(estimate)
        terms = {name: weights[name] * loss for name, loss in active.items()}
        sizes = torch.stack([term.detach().abs() for term in terms.values()])
        self.shares = dict(zip(terms, sizes / sizes.sum().clamp(min=1e-12), strict=True))
        return autograd.grad(sum(terms.values()), estimate, retain_graph=True)[0]


class Balancer(nn.Module):
    """EnCodec's balancer (arXiv 2210.13438, section 3.4): G = total_norm * sum_i w_i / sum(w) * g_i / mean ||g_i||.

    The mean is over steps, exponentially decayed. Unlike in audiocraft @ 896ec7c, gradients of exactly zero do not
    enter it, or a loss that starts late would start with a huge step. ``shares`` are those of the raw gradients' norms.

    In audiocraft, G has a norm of about ``total_norm`` at each of the B clips of a device, so that the gradient of the
    weights is B times a mean over clips (sqrt(B) times without ``per_item``); that of commitment, KL and distillation
    is a mean. Here this B is ``reference_batch``, whatever the batch, accumulation and number of ranks.

    Args:
        decay: of the running mean, which is bias-corrected.
        total_norm: of the combined gradient.
        per_item: norm of each clip's gradient, averaged over the batch of all ranks, instead of the root mean square.
        reference_batch: clips; None: the number on all ranks in one step, which divides the running means, too (or its
            root), as in checkpoints without this option.
    """

    def __init__(
        self, decay: float = 0.999, total_norm: float = 1.0, per_item: bool = True, reference_batch: int | None = None
    ):
        super().__init__()
        if reference_batch is not None and reference_batch < 1:
            raise ValueError(f"reference_batch is {reference_batch}, but has to be a number of clips, 1 or more")
        self.decay, self.total_norm, self.reference_batch = decay, total_norm, reference_batch
        self.power = 1.0 if per_item else 0.5
        self.shares: dict[str, Tensor] = {}
        self.means = nn.Module()

    def prepare(self, names: Iterable[str]) -> None:
        """Register the buffers (decayed sum and count of norms), so that all checkpoints have the same keys."""
        for name in names:
            self.means.register_buffer(name, torch.zeros(2))

    def forward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], estimate: Tensor) -> Tensor:
        active = active_losses(losses, weights)
        if not active:
            return torch.zeros_like(estimate)
        grads = [autograd.grad(loss, estimate, retain_graph=True)[0] for loss in active.values()]
        norms = self._norms(grads)
        with torch.no_grad():
            means = torch.stack([self._update(name, norm) for name, norm in zip(active, norms, strict=True)])
            self.shares = dict(zip(active, means / means.sum().clamp(min=1e-12), strict=True))
            total = sum(weights[name] for name in active) / (self.reference_batch or 1) ** self.power
            balanced = torch.zeros_like(estimate)
            for name, grad, mean in zip(active, grads, means, strict=True):
                balanced += grad * (self.total_norm * weights[name] / total / (mean + 1e-12))
        return balanced

    def _norms(self, grads: list[Tensor]) -> list[Tensor]:
        """Mean or RMS over the clips of all ranks of the norm that the gradient of a clip's own loss has."""
        clips, power = len(grads[0]), self.power
        norms = [(clips * g.float().flatten(1).norm(dim=1)).pow(1 / power).mean() for g in grads]
        clips *= world_size()
        return [norm**power / (1 if self.reference_batch else clips**power) for norm in mean_over_ranks(norms)]

    def _update(self, name: str, norm: Tensor) -> Tensor:
        """The running mean of a loss with one more norm, unless that is 0 or not finite."""
        state = self.means.get_buffer(name)
        new = self.decay * state + torch.stack([norm, torch.ones_like(norm)])
        state.copy_(torch.where((norm > 0) & norm.isfinite(), new, state))
        return state[0] / state[1].clamp(min=1e-12)


def active_losses(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The losses with a weight other than 0. Raises ValueError for a loss without a weight."""
    if missing := sorted(set(losses) - set(weights)):
        raise ValueError(f"no weight for {', '.join(missing)}; there are weights for {', '.join(sorted(weights))}")
    return {name: loss for name, loss in losses.items() if weights[name]}
