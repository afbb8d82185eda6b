"""Processes that run at once."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def at_once(function: Callable[..., None], *arguments: Any) -> None:
    """``function(rank, *arguments)`` in two processes.

    They fork from one that has imported torch and done nothing else, which saves its seconds in all but the first.
    """
    multiprocessing.set_forkserver_preload(["torch.distributed"])
    mp.start_processes(function, arguments, nprocs=2, start_method="forkserver")


def together(function: Callable[..., None], folder: Path, *arguments: Any) -> None:
    """The same in processes that can talk; ``folder`` is where they meet."""
    at_once(_rank, function, folder / "store", arguments)


def _rank(rank: int, function: Callable[..., None], store: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    function(rank, *arguments)
    dist.destroy_process_group()
