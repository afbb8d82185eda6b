"""Progress bar, throughput, and time spent waiting for data."""

import logging
from time import perf_counter
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

log = logging.getLogger("train")


class Progress(TQDMProgressBar):
    """One bar over all optimiser steps, with the losses that matter and audio seconds trained per second."""

    def __init__(self, refresh_rate: int = 10):
        super().__init__(refresh_rate=refresh_rate, leave=True)

    @property
    def total_train_batches(self) -> int:
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    def on_train_epoch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description("Training")

    def get_metrics(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> dict[str, str]:
        logged = trainer.logged_metrics
        shown = {label: logged[name] for label, name in task.shown.items() if name in logged}
        return {name: f"{float(value):.3g}" for name, value in shown.items()}


class Throughput(Callback):
    """Logs ``train/audio_s_per_s``: seconds of audio trained per second of wall time, over all processes, between two
    logged steps (validation and checkpoints not counted)."""

    def __init__(self):
        self.seconds = 0.0
        self.since = None

    def on_train_batch_start(self, *_: Any) -> None:
        if self.since is None:
            self.since, self.seconds = perf_counter(), 0.0

    def on_train_batch_end(self, trainer, task, outputs, batch: dict[str, Any], batch_idx: int) -> None:
        self.seconds += task.seconds(batch) * trainer.world_size
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:
            task.log("train/audio_s_per_s", self.seconds / (perf_counter() - self.since))
            self.since = None

    def on_validation_start(self, *_: Any) -> None:
        self.since = None


class DataWait(Callback):
    """One line, once, when a window of steps spends more than ``share`` of its time waiting for batches.

    Waiting is what lies between the end of a step and the beginning of the next, validation and checkpoints not
    counted. On a GPU a step returns before it is computed, so that a loader that keeps pace may be waited for a little:
    the share is generous. The first ``window`` steps, in which workers start, are not looked at.

    Logs ``train/data_wait``, the share, at every step that is logged.
    """

    def __init__(self, share: float = 0.3, window: int = 50):
        self.share, self.window = share, window
        self.waited = self.busy = 0.0
        self.steps, self.warm, self.said = 0, False, False
        self.at: float | None = None  # when the last step ended; None: what follows is no waiting

    def on_train_batch_start(self, *_: Any) -> None:
        now = perf_counter()
        if self.at is not None:
            self.waited += now - self.at
        self.at = now

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx: int) -> None:
        now = perf_counter()
        self.busy += now - self.at
        self.at, self.steps = now, self.steps + 1
        waiting = self.waited / max(self.waited + self.busy, 1e-9)
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:
            task.log("train/data_wait", waiting)
        if self.steps < self.window:
            return
        if self.warm and waiting > self.share and not self.said and trainer.is_global_zero:
            self.said = True
            log.warning(
                "data is the bottleneck: %.0f %% of the time goes into waiting for batches; raise data.workers, put "
                "the recordings on a faster disk, or make them mono at the codec's rate",
                100 * waiting,
            )
        self.waited, self.busy, self.steps, self.warm = 0.0, 0.0, 0, True

    def on_validation_start(self, *_: Any) -> None:
        self.at = None

    def on_save_checkpoint(self, *_: Any) -> None:
        self.at = None if self.at is None else perf_counter()
