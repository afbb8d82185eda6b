"""The random numbers of every process, in the checkpoint."""

import random
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

State = dict[str, Any]


class RandomState(Callback):
    """Saves the random state of each process in the checkpoint, and goes on from it when resumed.

    It is set just before the first step, after the loaders have been made: they draw numbers, too. A process that the
    checkpoint does not know, because there were fewer, begins with numbers of its own.
    """

    def __init__(self):
        self.restored: State | None = None

    def state_dict(self) -> dict[str, list[State]]:
        """All processes save together, as Lightning's do."""
        states = [random_state()]
        if dist.is_available() and dist.is_initialized():
            states = [None] * dist.get_world_size()
            dist.all_gather_object(states, random_state())
        return {"ranks": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rank = dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
        states = state.get("ranks", [state])  # older checkpoints have process 0's torch alone
        self.restored = states[rank] if rank < len(states) else None

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        if trainer.global_rank:  # all have been seeded alike
            seed = hash((torch.initial_seed(), trainer.global_rank, trainer.global_step)) % 2**32
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)

    def on_train_batch_start(self, *_: Any) -> None:
        if self.restored is not None:
            set_random_state(self.restored)
            self.restored = None


def random_state() -> State:
    """Of Python, NumPy, torch and, where there is one, this process's GPU: tensors and plain values."""
    kind, key, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002, libraries draw from it
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(key.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "cpu": torch.get_rng_state(),
        **cuda,
    }


def set_random_state(state: State) -> None:
    """What :func:`random_state` gave, or as much of it as there is."""
    torch.set_rng_state(state["cpu"].cpu())
    if "python" in state:
        random.setstate(state["python"])
        kind, key, *rest = state["numpy"]
        np.random.set_state((kind, key.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
