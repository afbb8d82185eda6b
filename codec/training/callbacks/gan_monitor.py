"""Warnings about slow failures of GAN training: unbalanced discriminators or gradients, collapsed codebooks."""

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
    """Warns on rank 0 if means over logged steps show that GAN training is failing.

    Args:
        patience: number of logged steps in a mean.
        every: minimum number of steps between two warnings of one kind.
        strong, weak: the discriminators are too strong or too weak if their loss, relative to that at chance, is below
            ``strong``, or between ``weak`` and 1 / ``weak``.
        ratio: maximum ratio of the gradient norms of codec and discriminators, either way.
        usage: minimum fraction of a codebook's entries in use.
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
        self.warned: dict[str, int] = {}  # message -> step

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch, batch_idx: int) -> None:
        last_of_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_global_zero and last_of_step and trainer.global_step % trainer.log_every_n_steps == 0:
            values = {name: v for name, v in outputs["values"].items() if name.startswith("quantizer/usage/")}
            values |= {"disc": outputs["values"]["disc"]} if task.losses.chance else {}
            values |= {f"norm/{name}": norm for name, norm in task.norms.items()}
            numbers = torch.stack([value.float().to(task.device) for value in values.values()]).tolist()  # one sync
            self.judge(trainer.global_step, dict(zip(values, numbers, strict=True)), task.losses.chance)

    def judge(self, step: int, values: dict[str, float], chance: float | None) -> None:
        """Add the values of a logged step, and warn if their means indicate a failure.

        ``values`` are ``quantizer/usage/K``, ``disc``, ``norm/codec`` and ``norm/disc``, if present. ``chance`` is the
        discriminators' loss at chance level, or None before they run.
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
