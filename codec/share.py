"""Which part of the work is this process's, where many share it: unit i belongs to process i mod world."""

import os
from collections.abc import Mapping


class ShareError(ValueError):
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
