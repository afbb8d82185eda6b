"""Numbers of a batch that lies on several processes: what they train on together is one batch.

A mean over examples needs nothing of this, since DDP takes the mean of the gradients over processes. Whatever divides
by a number of the batch (a norm, a count) must take that of the whole batch, or several processes would compute
something else than one does (tests/test_ranks.py).
"""

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> int:
    """How many train together: 1 alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def shared(values: list[Tensor]) -> list[Tensor]:
    """Scalars, each process's own -> their means over all processes, after one reduction for all of them.

    A gradient passes as it is: DDP's mean divides it by the number of processes. All must come here in the same order.
    Alone, or without gradients (in validation, where processes need not keep step), the values stay as they are.
    """
    if processes() == 1 or not torch.is_grad_enabled():
        return values
    return list(_Mean.apply(torch.stack(values)).unbind())


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total / processes()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient
