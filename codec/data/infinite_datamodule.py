"""LightningDataModule of endless training data by draw number: exact resuming and sharding."""

import itertools
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.fabric.utilities.seed import pl_worker_init_function
from torch.utils.data import DataLoader, Dataset, Sampler

from codec.utils.errors import InputError

SHARED_MEMORY = Path("/dev/shm")  # Linux; other systems share by other means
PREFETCH = 2  # batches that each loader process holds ready
TIMEOUT = 3600  # seconds without a batch: reads over a network are tried again for half an hour


class InfiniteDataModule(LightningDataModule):
    """Endless training data in which draw n depends on (seed, n) alone; length is in steps (`max_steps`), not epochs.

    **The Trainer needs `use_distributed_sampler=False`**: rank r of w already takes draws r, r + w, r + 2w, ... A
    resumed run continues after the last draw it trained on, also with another batch size or number of ranks.
    `batch_size` and `workers` (loader processes; 0 loads in the training process) are per rank.
    """

    def __init__(self, batch_size: int, workers: int, seed: int):
        super().__init__()
        if batch_size < 1 or workers < 0:
            raise InputError(f"batch_size={batch_size} and workers={workers} must be at least 1 and 0")
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self._restored = {"draws": 0, "step": 0}

    @property
    def rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def loader(
        self, examples: Dataset, collate: Callable[[list], Any], streamed: bool = False, example_bytes: int = 0
    ) -> DataLoader:
        """Training loader of this rank; `examples` are map-style, or a stream that shards by itself (`streamed`).
        Raises InputError if batches of examples of `example_bytes` do not fit into shared memory."""
        check_shared_memory(self.workers, self.batch_size, example_bytes)
        return DataLoader(
            examples,
            batch_size=self.batch_size,
            sampler=None if streamed else InfiniteSampler(self.draws, *self.rank_and_world),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            worker_init_fn=init_worker,
            prefetch_factor=PREFETCH if self.workers else None,
            timeout=TIMEOUT if self.workers else 0,
        )

    def draws(self) -> int:
        """Number of draws that all ranks together have trained on."""
        if not self.trainer:
            return self._restored["draws"]
        steps = self.trainer.global_step - self._restored["step"]
        per_step = self.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        return self._restored["draws"] + steps * per_step

    def state_dict(self) -> dict[str, int]:
        return {"draws": self.draws(), "step": self.trainer.global_step if self.trainer else 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._restored = dict(state_dict)


def check_shared_memory(workers: int, batch_size: int, example_bytes: int) -> None:
    """Raise InputError if the batches that loader processes hold ready do not fit into /dev/shm (Docker's has 64 MB):
    they would be killed, or wait for ever."""
    if not (workers and example_bytes and SHARED_MEMORY.is_dir()):
        return
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE", "1")))
    needed = (ranks * workers * PREFETCH + 1) * batch_size * example_bytes
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise InputError(
            f"{ranks * workers} loader processes hold {needed / 1e6:.0f} MB of batches in shared memory, and "
            f"{SHARED_MEMORY} has {free / 1e6:.0f} MB left: set data.workers=0, lower data.workers or batch_size, or "
            f"give a container more (docker run --shm-size={math.ceil(needed / 5e8)}g)"
        )


class InfiniteSampler(Sampler[int]):
    """Draw numbers of one rank, from `start()` on, which is called when iteration begins."""

    def __init__(self, start: Callable[[], int], rank: int, world: int):
        self.start, self.rank, self.world = start, rank, world

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start() + self.rank, self.world)


def init_worker(worker: int) -> None:
    """Seed a loader process as Lightning does, and let it ignore signals to the whole job: a preempted job needs its
    workers to finish its step. The training process ends them with a SIGTERM of its own."""
    pl_worker_init_function(worker)
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where the sender of a signal is unknown
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_when_parent_asks, daemon=True).start()


def _exit_when_parent_asks() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
