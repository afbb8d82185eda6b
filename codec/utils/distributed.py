"""Training processes and shares of work: what several processes compute is what one would.

A mean over examples needs nothing of this, since DDP takes the mean of the gradients over processes. Whatever divides
by a number of the batch (a norm, a count) must take that of the whole batch, or several processes would compute
something else than one does (tests/training/test_ranks.py).
"""

import os
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from codec.utils.errors import InputError


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


class ShareError(InputError):
    """The numbers of the processes do not fit together; the message says which."""


def share(rank: int | None, world: int | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, world) as given, else torchrun's or srun's, or a SLURM array's task, else (0, 1).

    A SLURM array of tasks that are several processes each (``srun`` inside ``--array``) is their product.

    Raises:
        ShareError: if only one is given, or the rank is not one of the world's.
    """
    if (rank is None) != (world is None):
        raise ShareError("--rank and --world go together: give both, or none")
    if rank is None:
        rank, world = _numbers(environment, "RANK", "WORLD_SIZE")
        if "WORLD_SIZE" not in environment:
            rank, world = _numbers(
                environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"
            )  # NTASKS is there without srun, too
        if "SLURM_ARRAY_TASK_ID" in environment:
            first, step = (_number(environment, f"SLURM_ARRAY_TASK_{n}", d) for n, d in (("MIN", 0), ("STEP", 1)))
            task = (_number(environment, "SLURM_ARRAY_TASK_ID", 0) - first) // max(1, step)
            rank, world = task * world + rank, world * _number(environment, "SLURM_ARRAY_TASK_COUNT", 1)
    if not 0 <= rank < world:
        raise ShareError(f"rank {rank} of {world}: ranks go from 0 to one below their number")
    return rank, world


def _numbers(environment: Mapping[str, str], rank: str, world: str) -> tuple[int, int]:
    return _number(environment, rank, 0), _number(environment, world, 1)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environment.get(name) or default)
    except ValueError:
        raise ShareError(f"the environment variable {name} is {environment[name]!r}, which is no number") from None
