"""Two ways to turn several losses of one waveform into one gradient at that waveform.

`Balancer` is EnCodec's (arXiv 2210.13438, section 3.4), with the details of audiocraft @ 896ec7c:
weights are shares of the gradient and not factors on the losses. Where we differ: a gradient that is exactly
zero does not enter the running mean, so a loss that starts late does not start with a mean near zero and thus
a huge step. Weights are relative to the losses that are present, in both codes.

Several processes give what one gives with the whole batch. audiocraft gives each example of each process a gradient of
fixed length and DDP then takes the mean over processes, so that the codec's gradient is smaller by their number than
that of one process, against the commitment, which is not balanced, and against the norm at which it is clipped: the
same batch on more GPUs is another recipe there.

Contract: `combine(losses, weights, estimate) -> gradient`, shaped like `estimate`. `shares` holds, after a
call, one detached scalar per loss for logging. `prepare(names)` is called once, before a checkpoint is
loaded.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, autograd, nn

from codec.utils.distributed import mean_over_ranks, world_size


class Weighted(nn.Module):
    """The gradient of the weighted sum, in one backward pass.

    `shares` are shares of the sum's value, |w L| / sum |w L|: a gradient per loss would cost a backward pass
    per loss.
    """

    def __init__(self):
        super().__init__()
        self.shares: dict[str, Tensor] = {}

    def prepare(self, names: Iterable[str]) -> None:
        """Nothing to remember between steps."""

    def forward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], estimate: Tensor) -> Tensor:
        active = active_losses(losses, weights)
        if not active:
            return torch.zeros_like(estimate)
        terms = {name: weights[name] * loss for name, loss in active.items()}
        sizes = torch.stack([term.detach().abs() for term in terms.values()])
        self.shares = dict(zip(terms, sizes / sizes.sum().clamp(min=1e-12), strict=True))
        return autograd.grad(sum(terms.values()), estimate, retain_graph=True)[0]


class Balancer(nn.Module):
    """G = total_norm * sum_i w_i / sum(w) * g_i / mean ||g_i||, with a running mean over steps.

    decay: of the running mean, whose start is corrected for bias.
    per_item: the norm of each item's gradient, averaged over the batch, rather than the whole batch's norm.
    The batch is that of all processes.
    The running means are buffers of the checkpoint, per loss the decayed sum and the decayed count.
    `shares` are shares of the raw gradients' norms before balancing; after it they are the weights.
    """

    def __init__(self, decay: float = 0.999, total_norm: float = 1.0, per_item: bool = True):
        super().__init__()
        self.decay, self.total_norm, self.per_item = decay, total_norm, per_item
        self.shares: dict[str, Tensor] = {}
        self.means = nn.Module()

    def prepare(self, names: Iterable[str]) -> None:
        """Make the buffers, so that a checkpoint has the same keys before the first step and after it."""
        for name in names:
            self.means.register_buffer(name, torch.zeros(2))

    def forward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float], estimate: Tensor) -> Tensor:
        active = active_losses(losses, weights)
        if not active:
            return torch.zeros_like(estimate)
        grads = [autograd.grad(loss, estimate, retain_graph=True)[0] for loss in active.values()]
        norms = self.norms(grads)
        with torch.no_grad():
            means = torch.stack([self.update(name, norm) for name, norm in zip(active, norms, strict=True)])
            self.shares = dict(zip(active, means / means.sum().clamp(min=1e-12), strict=True))
            total = sum(weights[name] for name in active)
            balanced = torch.zeros_like(estimate)
            for name, grad, mean in zip(active, grads, means, strict=True):
                balanced += grad * (self.total_norm * weights[name] / total / (mean + 1e-12))
        return balanced

    def norms(self, grads: list[Tensor]) -> list[Tensor]:
        """What one process would measure, in whose larger mean each example has a smaller part. Dividing the gradients
        of this process's smaller mean by it makes up for DDP's mean over processes."""
        norms, count = [self.norm(grad.float()) for grad in grads], world_size()
        if count == 1:
            return norms
        if self.per_item:
            return [norm / count for norm in mean_over_ranks(norms)]
        return [(square / count).sqrt() for square in mean_over_ranks([norm.square() for norm in norms])]

    def norm(self, grad: Tensor) -> Tensor:
        return grad.flatten(1).norm(dim=1).mean() if self.per_item else grad.norm()

    def update(self, name: str, norm: Tensor) -> Tensor:
        """Feed one norm into the running mean of `name`, unless it is 0 or not finite, and return the mean."""
        state = self.means.get_buffer(name)
        fed = self.decay * state + torch.stack([norm, torch.ones_like(norm)])
        state.copy_(torch.where((norm > 0) & norm.isfinite(), fed, state))
        return state[0] / state[1].clamp(min=1e-12)


def active_losses(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The losses with a weight other than 0. Raises ValueError for a loss that has none."""
    if missing := sorted(set(losses) - set(weights)):
        raise ValueError(f"No weight for {', '.join(missing)}; there are weights for {', '.join(sorted(weights))}.")
    return {name: loss for name, loss in losses.items() if weights[name]}
