"""Ranks of a training run or a distributed command, and means over ranks. Means over examples need nothing from here,
as DDP averages gradients; a divisor in a loss (a norm, a count) must be that of the whole batch on all ranks."""

import os
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from codec.utils.errors import InputError


def world_size() -> int:
    """Number of ranks that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_ranks(values: list[Tensor]) -> list[Tensor]:
    """Means over ranks of scalars, by one all-reduce, which all ranks must call in the same order. Gradients pass
    unchanged, since DDP divides them by the number of ranks. With one rank, or without gradients (validation, where
    ranks are not synchronised), the values are returned unchanged."""
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
    """(rank, world size) as given, else of torchrun, srun or a SLURM array, else (0, 1). For ``srun`` inside
    ``--array`` the world size is the product. Raises InputError if only one is given, or the rank is out of range."""
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
