"""Ranks of a training run or of a distributed command, and means over them, so that N ranks compute what one would.

Means over examples need nothing from here: DDP averages the gradients over ranks. A quantity that a loss divides by (a
norm, a count) must be that of the whole batch, on all ranks (tests/training/test_ranks.py).
"""

import os
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from codec.utils.errors import InputError


def world_size() -> int:
    """The number of ranks that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(values: list[Tensor]) -> list[Tensor]:
    """Scalars of each rank -> their means over ranks, by one all-reduce. All ranks must call it in the same order.

    Gradients pass unchanged, since DDP divides them by the number of ranks. With one rank, or without gradients (in
    validation, where ranks are not synchronised), the values are returned as they are.
    """
    if world_size() == 1 or not torch.is_grad_enabled():
        return values
    return list(_Mean.apply(torch.stack(values)).unbind())


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total / world_size()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


def rank_and_world_size(
    rank: int | None = None, world: int | None = None, environment: Mapping[str, str] = os.environ
) -> tuple[int, int]:
    """(rank, world size) as given, else those of torchrun, srun or a SLURM array, else (0, 1).

    For a SLURM array whose tasks are several processes each (``srun`` inside ``--array``), the world size is the
    product.

    Raises:
        InputError: if only one of them is given, or the rank is outside of the world.
    """
    if (rank is None) != (world is None):
        raise InputError("--rank and --world belong together: give both or neither")
    if rank is None:
        number = lambda name, default: _number(environment, name, default)  # noqa: E731
        if "WORLD_SIZE" in environment:
            rank, world = number("RANK", 0), number("WORLD_SIZE", 1)
        else:  # not SLURM_NTASKS, which is also set without srun
            rank, world = number("SLURM_PROCID", 0), number("SLURM_STEP_NUM_TASKS", 1)
        if "SLURM_ARRAY_TASK_ID" in environment:
            first, step = number("SLURM_ARRAY_TASK_MIN", 0), max(1, number("SLURM_ARRAY_TASK_STEP", 1))
            task = (number("SLURM_ARRAY_TASK_ID", 0) - first) // step
            rank, world = task * world + rank, world * number("SLURM_ARRAY_TASK_COUNT", 1)
    if not 0 <= rank < world:
        raise InputError(f"rank {rank} of {world}: ranks go from 0 to one below their number")
    return rank, world


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environment.get(name) or default)
    except ValueError:
        raise InputError(f"the environment variable {name} is {environment[name]!r}, which is no number") from None
