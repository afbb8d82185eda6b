"""What goes wrong slowly: a game that one side has won, and codebooks that collapse. Warned about, never acted upon."""

import logging
from collections import deque
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)
COLLAPSED = (
    "few codes of %s are in use (%s): the usual remedies are more audio per step (batch_size, segment), a smaller "
    "quantizer.codebook_size or codebook_dim, and replacing unused codes sooner (quantizer.dead_below)"
)
WON = (
    "the discriminators' loss has been %.2g for long, near 0: they tell everything apart and teach little; the usual "
    "remedies are a lower optim.disc.lr and a later adversarial_start"
)
LOST = (
    "the discriminators' loss has been %.2g for long, that of guessing (%.2g): they tell nothing apart; the usual "
    "remedies are a higher optim.disc.lr, a lower weight of the adversarial loss, and other discriminators (disc=)"
)
UNEVEN = (
    "the gradient of %s has been %.0f times that of %s for long: the usual remedies are clipping (optim.codec.clip, "
    "optim.disc.clip), a lower lr for that side, and loss=balancer"
)


class BalanceWatch(Callback):
    """Looks at the steps that are logged, in process 0, and warns in one sentence of each kind at most every so often.

    Args:
        patience: logged steps whose mean is judged; none is before there are as many.
        every: steps between two warnings of one kind.
        won: share of the loss of guessing below which the discriminators have won.
        lost: the share above which they have lost; 1 is guessing.
        ratio: of the two sides' gradient norms, either way.
        usage: share of a codebook's codes below which it has collapsed.
    """

    def __init__(
        self,
        patience: int = 20,
        every: int = 5000,
        won: float = 0.02,
        lost: float = 0.99,
        ratio: float = 1e4,
        usage: float = 0.05,
    ):
        self.patience, self.every = patience, every
        self.won, self.lost, self.ratio, self.usage = won, lost, ratio, usage
        self.seen: dict[str, deque[float]] = {}
        self.warned: dict[str, int] = {}  # kind -> step

    def on_train_batch_end(self, trainer: lightning.Trainer, task, outputs, batch, batch_idx: int) -> None:
        last_of_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.is_global_zero and last_of_step and trainer.global_step % trainer.log_every_n_steps == 0:
            values = {name: v for name, v in outputs["values"].items() if name.startswith("quantizer/usage/")}
            values |= {"disc": outputs["values"]["disc"]} if task.losses.chance else {}
            values |= {f"norm/{side}": norm for side, norm in task.norms.items()}
            numbers = torch.stack([value.float().to(task.device) for value in values.values()]).tolist()  # waits once
            self.judge(trainer.global_step, dict(zip(values, numbers, strict=True)), task.losses.chance)

    def judge(self, step: int, values: dict[str, float], chance: float | None) -> None:
        """Warn of what the values up to this step say.

        Args:
            values: ``quantizer/usage/K`` (share), ``disc`` (loss), ``norm/codec``, ``norm/disc``: those that there are.
            chance: the discriminators' loss while they guess; None: there are none yet.
        """
        for name, value in values.items():
            self.seen.setdefault(name, deque(maxlen=self.patience)).append(value)
        mean = {n: sum(v) / len(v) for n, v in self.seen.items() if n in values and len(v) == self.patience}
        usage = {name.removeprefix("quantizer/usage/"): v for name, v in mean.items() if "usage" in name}
        low = {number: share for number, share in usage.items() if share < self.usage}
        if low:
            shares = ", ".join(f"{share:.1%}" for share in low.values())
            self._warn("collapse", step, COLLAPSED, f"codebook {', '.join(low)}", shares)
        if chance and "disc" in mean:
            if mean["disc"] < self.won * chance:
                self._warn("won", step, WON, mean["disc"])
            elif self.lost * chance < mean["disc"] < chance / self.lost:
                self._warn("lost", step, LOST, mean["disc"], chance)
        codec, disc = mean.get("norm/codec"), mean.get("norm/disc")
        if codec and disc and not 1 / self.ratio < codec / disc < self.ratio:
            sides = ("the codec", codec / disc, "the discriminators")
            sides = sides if codec > disc else ("the discriminators", disc / codec, "the codec")
            self._warn("uneven", step, UNEVEN, *sides)

    def _warn(self, kind: str, step: int, sentence: str, *values: Any) -> None:
        if step - self.warned.get(kind, -self.every) >= self.every:
            self.warned[kind] = step
            log.warning("step %d: " + sentence, step, *values)
