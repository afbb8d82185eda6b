"""Warns of slow failures of training: unbalanced discriminators, unequal gradients, collapsed codebooks."""

import logging
from collections import deque
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)
COLLAPSED = (
    "few codes of codebook %s are in use (%s): the usual remedies are more audio per step (batch_size, segment), a "
    "smaller quantizer.codebook_size or codebook_dim, and replacing unused codes sooner (quantizer.dead_below)"
)
STRONG = (
    "the discriminators' loss has been %.2g for long, near 0: they tell everything apart and teach little; the usual "
    "remedies are a lower optim.disc.lr and a later adversarial_start"
)
WEAK = (
    "the discriminators' loss has been %.2g for long, that of guessing (%.2g): they tell nothing apart; the usual "
    "remedies are a higher optim.disc.lr, a lower weight of the adversarial loss, and other discriminators (disc=)"
)
UNEQUAL = (
    "the gradient of %s has been %.0f times that of %s for long: the usual remedies are clipping (optim.codec.clip, "
    "optim.disc.clip), a lower lr for that model, and loss=balancer"
)


class GANMonitor(Callback):
    """Looks at the logged steps on rank 0; one sentence for each kind of failure, never more often than ``every``.

    Args:
        patience: number of logged steps whose mean is judged.
        every: steps between two warnings of one kind.
        strong: share of the loss of guessing below which the discriminators are too strong.
        weak: the share above which they are too weak; 1 is guessing.
        ratio: of the two gradient norms, either way.
        usage: share of a codebook's codes below which it has collapsed.
    """

    def __init__(
        self,
        patience: int = 20,
        every: int = 5000,
        strong: float = 0.02,
        weak: float = 0.99,
        ratio: float = 1e4,
        usage: float = 0.05,
    ):
        self.patience, self.every = patience, every
        self.strong, self.weak, self.ratio, self.usage = strong, weak, ratio, usage
        self.history: dict[str, deque[float]] = {}
        self.warned: dict[str, int] = {}  # sentence -> step

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch, batch_idx: int) -> None:
        last_of_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_global_zero and last_of_step and trainer.global_step % trainer.log_every_n_steps == 0:
            values = {name: v for name, v in outputs["values"].items() if name.startswith("quantizer/usage/")}
            values |= {"disc": outputs["values"]["disc"]} if task.losses.chance else {}
            values |= {f"norm/{name}": norm for name, norm in task.norms.items()}
            numbers = torch.stack([value.float().to(task.device) for value in values.values()]).tolist()  # one wait
            self.judge(trainer.global_step, dict(zip(values, numbers, strict=True)), task.losses.chance)

    def judge(self, step: int, values: dict[str, float], chance: float | None) -> None:
        """Warn if the values up to this step ask for it.

        Args:
            values: ``quantizer/usage/K`` (share), ``disc`` (loss), ``norm/codec``, ``norm/disc``, where they exist.
            chance: the discriminators' loss while they guess; None before they run.
        """
        for name, value in values.items():
            self.history.setdefault(name, deque(maxlen=self.patience)).append(value)
        mean = {n: sum(v) / len(v) for n, v in self.history.items() if n in values and len(v) == self.patience}
        usage = {name.removeprefix("quantizer/usage/"): v for name, v in mean.items() if "usage" in name}
        if low := {number: share for number, share in usage.items() if share < self.usage}:
            self._warn(step, COLLAPSED, ", ".join(low), ", ".join(f"{share:.1%}" for share in low.values()))
        if chance and "disc" in mean:
            if mean["disc"] < self.strong * chance:
                self._warn(step, STRONG, mean["disc"])
            elif self.weak * chance < mean["disc"] < chance / self.weak:
                self._warn(step, WEAK, mean["disc"], chance)
        codec, disc = mean.get("norm/codec"), mean.get("norm/disc")
        if codec and disc and not 1 / self.ratio < codec / disc < self.ratio:
            names = ("the codec", "the discriminators")[:: 1 if codec > disc else -1]
            self._warn(step, UNEQUAL, names[0], max(codec / disc, disc / codec), names[1])

    def _warn(self, step: int, sentence: str, *values: Any) -> None:
        if step - self.warned.get(sentence, -self.every) >= self.every:
            self.warned[sentence] = step
            log.warning("step %d: " + sentence, step, *values)
