"""Counting of steps skipped because a loss or gradient is not finite; too many in a row end the run."""

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
from codec.training.replay import DIVERGED, BatchDump
from codec.utils.distributed import world_size
from codec.utils.errors import UserError

log = logging.getLogger(__name__)
NAMED = 5  # clips in a message


@dataclass
class Step:
    """An optimiser step whose flag ``skipped`` is being copied from the device."""

    number: int
    batches: list[tuple[BatchDump, Tensor]]  # with their nonfinite masks [L, B]; several if gradients are accumulated
    skipped: Tensor
    copied: torch.cuda.Event | None = None


class NonfiniteGuard(Callback):
    """Counts skipped steps, names their clips, and ends the run with a UserError after ``limit`` in a row.

    The run folder then contains the last batch, and ``checkpoints/diverged.ckpt`` the weights before its step
    (:mod:`codec.training.replay`). On a GPU, a step's flag is read one step late, to avoid synchronisation.
    """

    state_key = "DivergenceGuard"  # its name when the first checkpoints were written

    def __init__(self, folder: str, limit: int = 10):
        if limit < 1:
            raise ValueError(f"limit={limit} skipped steps in a row: 1 or more can end a run")
        self.folder, self.limit = Path(folder), limit
        self.row = self.total = 0
        self.batches: list[tuple[BatchDump, Tensor]] = []
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
        last = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        number = trainer.global_step - last  # of the step that the batch belongs to
        files, tensors, phones = batch["file"], task.dump(batch), batch.get("phones")
        dump = BatchDump(tensors, files, number, trainer.global_rank, self.random, phones)
        self.batches.append((dump, task.nonfinite))
        if not last:
            return
        cuda = task.skipped.is_cuda
        step = Step(number, self.batches, task.skipped.to("cpu", non_blocking=True))
        if cuda:
            step.copied = torch.cuda.Event()
            step.copied.record()
        self.queue.append(step)
        self.batches = []
        delay = int(cuda and self.row == 0 and self.limit > 1)  # 0 if the step may end the run: weights as before it
        while len(self.queue) > delay:
            step = self.queue.popleft()
            if self._count(step) and self.row >= self.limit:
                self._end(trainer, step)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            task.log("guard/skipped", float(self.total))

    def on_train_end(self, *_: Any) -> None:
        self.state_dict()

    def _count(self, step: Step) -> bool:
        """Count the step; returns whether it was skipped, which is the same on all ranks."""
        if step.copied is not None:
            step.copied.synchronize()
        if not step.skipped.item():
            self.row = 0
            return False
        self.row, self.total = self.row + 1, self.total + 1
        log.warning(
            "step %d is skipped, as its loss or gradient is not finite (%d in a row, %d in all); %s",
            *(step.number, self.row, self.total, _clips(step)),
        )
        return True

    def _end(self, trainer: lightning.Trainer, step: Step) -> None:
        clips = _clips(step)
        try:
            trainer.save_checkpoint(self.folder / "checkpoints" / DIVERGED)  # a collective operation of all ranks
            dump, mask = min(step.batches, key=lambda batch: _marked(*batch)[0])
            if mask.any() or trainer.is_global_zero:
                dump.save(self.folder)
            require_saved(trainer)
            saved = f"the batch is in {self.folder}/diverged_step={step.number}_*.safetensors"
        except (OSError, SafetensorError, StorageError) as error:
            saved = f"the batch could not be saved ({error})"
        good = last_before(self.folder / "checkpoints", step.number + 1 - self.limit)
        remedy = (
            "start again" if good is None else f"resume from the last good checkpoint {good} (step {step_of(good)})"
        )
        raise UserError(
            f"{self.limit} steps in a row to step {step.number} had a loss or gradient that is not finite, {clips}: "
            f"{remedy} with a lower lr or a clip (optim.*.clip), or without these clips; {saved}"
        )


def _marked(dump: BatchDump, mask: Tensor) -> tuple[int, list[str]]:
    """(first row of the mask ``[L, B]`` that marks clips, their names). A row after the first that marks all of them
    says nothing about clips: the recordings are finite and the weights are not."""
    for level, row in enumerate(mask.tolist()):
        if any(row) and not (level and all(row)):
            return level, [file for file, one in zip(dump.files, row, strict=True) if one]
    return len(mask), []


def _clips(step: Step) -> str:
    """Names of the clips at the first level that any rank marks, or of all clips if there is none: one clip can spoil
    what follows on all ranks. A collective operation."""
    found = [([_marked(*batch) for batch in step.batches], [file for dump, _ in step.batches for file in dump.files])]
    if world_size() > 1:
        own, found = found[0], [None] * world_size()
        dist.all_gather_object(found, own)
    first = min(level for marked, _ in found for level, _ in marked)
    bad = list(
        dict.fromkeys(name for marked, _ in found for level, names in marked if level == first for name in names)
    )
    names = bad or list(dict.fromkeys(name for _, every in found for name in every))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{'not finite' if bad else 'clips'}: {', '.join(names[:NAMED])}{more}"
