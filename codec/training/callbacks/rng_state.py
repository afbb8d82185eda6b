"""Random states of all ranks in checkpoints."""

import random
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from codec.utils.distributed import world_size

State = dict[str, Any]


class RandomState(Callback):
    """Saves each rank's random state in checkpoints and restores it on resuming; additional ranks get their own seed.

    It is restored just before the first step, because creating data loaders draws random numbers.
    """

    def __init__(self):
        self.restored: State | None = None

    def state_dict(self) -> dict[str, list[State]]:
        """The states of all ranks, by a collective operation."""
        states = [random_state()]
        if world_size() > 1:
            states = [None] * world_size()
            dist.all_gather_object(states, random_state())
        return {"ranks": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rank = dist.get_rank() if world_size() > 1 else 0
        states = state.get("ranks", [state])  # older checkpoints have torch's state of rank 0 alone
        self.restored = states[rank] if rank < len(states) else None

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        if trainer.global_rank:  # all ranks start with the same seed
            seed = hash((torch.initial_seed(), trainer.global_rank, trainer.global_step)) % 2**32
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)

    def on_train_batch_start(self, *_: Any) -> None:
        if self.restored is not None:
            set_random_state(self.restored)
            self.restored = None


def random_state() -> State:
    """Random states of Python, NumPy, torch and the current GPU, as tensors and plain values."""
    kind, key, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002, libraries draw from it
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(key.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "cpu": torch.get_rng_state(),
        **cuda,
    }


def set_random_state(state: State) -> None:
    """Restore a result of :func:`random_state`; states that an older checkpoint lacks are unchanged."""
    torch.set_rng_state(state["cpu"].cpu())
    if "python" in state:
        random.setstate(state["python"])
        kind, key, *rest = state["numpy"]
        np.random.set_state((kind, key.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
