"""What happens when a loss or a gradient is not finite: the step is skipped, counted and blamed; too many end the run.

Skipping is the training step's own (codec/training/codec_task.py): a loss that is not finite makes every gradient of
its process NaN,
the reduction of gradients takes that to every process, and the fused optimiser looks at one flag on the device. So all
processes skip alike without a word between them, and nobody waits for a GPU. Codebooks and balancer leave such a batch
out by themselves.
"""

import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from safetensors import SafetensorError
from torch import Tensor

from codec.checkpoints.lightning_plugin import require_saved
from codec.checkpoints.save import StorageError, last_before, step_of
from codec.distillation.base import Phones
from codec.training.replay import DIVERGED, BadBatch, DivergenceError

log = logging.getLogger(__name__)
NAMED = 5  # clips in a sentence


@dataclass
class Part:
    """One batch of a step (several where gradients are accumulated): of what it was made; suspects ``[levels, B]``
    bool, as of :class:`codec.training.base_task.BaseTask`."""

    files: list[str]
    tensors: dict[str, Tensor]
    suspects: Tensor
    random: dict[str, Tensor]
    phones: Phones | None = None

    def blamed(self) -> tuple[int, list[str]]:
        """The first level that says which clips, and these. Where the recordings are sound and all else is not, it is
        the codec that is not."""
        for level, marks in enumerate(self.suspects.tolist()):
            if any(marks) and not (level and all(marks)):
                return level, [file for file, mark in zip(self.files, marks, strict=True) if mark]
        return len(self.suspects), []


@dataclass
class Step:
    """A step whose flag is on its way from the device."""

    number: int
    parts: list[Part]
    skipped: Tensor
    copied: torch.cuda.Event | None


class DivergenceGuard(Callback):
    """Counts skipped steps, names their clips, and stops after ``limit`` in a row.

    On a GPU the flag of a step is read when the next has been queued, so that it never waits. A stop leaves behind
    ``checkpoints/diverged.ckpt``, with the weights that the step met, and the batch (:mod:`codec.training.replay`).

    Args:
        folder: of the run.
        limit: skipped steps in a row that end the run with a DivergenceError.
    """

    def __init__(self, folder: str, limit: int = 10):
        if limit < 1:
            raise ValueError(f"limit={limit} skipped steps in a row: 1 or more can end a run")
        self.folder, self.limit = Path(folder), limit
        self.row = self.total = 0
        self.parts: list[Part] = []
        self.queue: deque[Step] = deque()
        self.random: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, int]:
        while self.queue:
            self._count(self.queue.popleft())
        return {"row": self.row, "total": self.total}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.row, self.total = state["row"], state["total"]

    def on_train_batch_start(self, trainer: lightning.Trainer, task: lightning.LightningModule, *_: Any) -> None:
        cuda = {"random_cuda": torch.cuda.get_rng_state()} if task.device.type == "cuda" else {}
        self.random = {"random": torch.get_rng_state(), **cuda}

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch, batch_idx: int) -> None:
        self.parts.append(Part(batch["file"], task.kept(batch), task.suspects, self.random, batch.get("phones")))
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        cuda = task.skipped.is_cuda
        step = Step(trainer.global_step - 1, self.parts, task.skipped.to("cpu", non_blocking=True), None)
        if cuda:
            step.copied = torch.cuda.Event()
            step.copied.record()
        self.queue.append(step)
        self.parts = []
        late = int(cuda and self.row == 0 and self.limit > 1)  # the weights of a stop are those that the step met
        while len(self.queue) > late:
            step = self.queue.popleft()
            if self._count(step) and self.row >= self.limit:
                self._stop(trainer, step)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            task.log("guard/skipped", float(self.total))

    def on_train_end(self, *_: Any) -> None:
        self.state_dict()

    def _count(self, step: Step) -> bool:
        """Whether the step was skipped. Every process comes to the same answer."""
        if step.copied is not None:
            step.copied.synchronize()
        if not step.skipped.item():
            self.row = 0
            return False
        self.row, self.total = self.row + 1, self.total + 1
        log.warning(
            "step %d is skipped, as its loss or gradient is not finite (%d in a row, %d in all): %s",
            *(step.number, self.row, self.total, self._blame(step)),
        )
        return True

    def _blame(self, step: Step) -> str:
        found = [part.blamed() for part in step.parts]
        if dist.is_available() and dist.is_initialized():
            everyone = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, found)
            found = [one for rank in everyone for one in rank]
        first = min(level for level, _ in found)
        if suspects := [name for level, names in found if level == first for name in names]:
            return f"because of {_some(suspects)}"
        return f"no clip by itself, the batch has {_some([name for part in step.parts for name in part.files])}"

    def _stop(self, trainer: lightning.Trainer, step: Step) -> None:
        checkpoints, blame = self.folder / "checkpoints", self._blame(step)
        try:
            self._keep(trainer, step)
            kept = f"the batch is in {self.folder}/diverged_step={step.number}_*.safetensors"
        except (OSError, SafetensorError, StorageError) as error:
            kept = f"the batch could not be kept ({error})"
        good = last_before(checkpoints, step.number + 1 - self.limit)
        again = "begin again" if good is None else f"go on from the last good checkpoint {good} (step {step_of(good)})"
        raise DivergenceError(
            f"{self.limit} steps in a row to step {step.number} had a loss or gradient that is not finite, {blame}: "
            f"{again} with a lower lr or a clip (optim.*.clip), or without these clips; {kept}"
        )

    def _keep(self, trainer: lightning.Trainer, step: Step) -> None:
        trainer.save_checkpoint(self.folder / "checkpoints" / DIVERGED)  # all processes together
        part = min(step.parts, key=lambda part: part.blamed()[0])
        if part.suspects.any() or trainer.is_global_zero:
            names = part.files, part.blamed()[1]
            where = step.number, trainer.global_rank
            BadBatch(part.tensors, *names, *where, part.random, part.phones).save(self.folder)
        require_saved(trainer)


def _some(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
