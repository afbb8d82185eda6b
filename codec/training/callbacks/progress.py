"""Progress bar, throughput, and the fraction of time that training waits for data."""

import logging
import sys
from time import perf_counter
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

log = logging.getLogger("train")


class Progress(TQDMProgressBar):
    """One progress bar over all optimiser steps; if stdout is not a terminal, one line per validation."""

    def __init__(self, refresh_rate: int = 10):
        self.terminal = sys.stdout.isatty()  # where the bar is written
        super().__init__(refresh_rate=refresh_rate if self.terminal else 0, leave=True)

    @property
    def total_train_batches(self) -> int:
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    def on_train_epoch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description("Training")

    def on_validation_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        super().on_validation_end(trainer, task)
        if not self.terminal and trainer.is_global_zero and not trainer.sanity_checking:
            values = " ".join(f"{name}={value}" for name, value in self.get_metrics(trainer, task).items())
            print(f"step {trainer.global_step}/{trainer.max_steps} {values}", flush=True)

    def get_metrics(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> dict[str, str]:
        logged = trainer.logged_metrics
        values = {label: logged[name] for label, name in task.progress_metrics.items() if name in logged}
        return {name: f"{float(value):.3g}" for name, value in values.items()}


class Throughput(Callback):
    """Logs the speed of training without validation and checkpoints; warns once if data loading is the bottleneck.

    ``train/audio_s_per_s``: seconds of audio per second, over all ranks. ``train/data_wait``: fraction of time between
    steps. The warning needs more than ``share`` of it in ``window`` steps (not the first, in which workers start). On a
    GPU, steps are asynchronous, so that some waiting is normal.
    """

    def __init__(self, share: float = 0.3, window: int = 50):
        self.share, self.window = share, window
        self.waited = self.busy = self.audio = self.elapsed = 0.0  # seconds
        self.steps, self.warm, self.warned = 0, False, False
        self.last: float | None = None  # end of the last step; None if validation followed it

    def on_train_batch_start(self, *_: Any) -> None:
        now = perf_counter()
        if self.last is not None:
            self.waited += now - self.last
            self.elapsed += now - self.last
        self.last = now

    def on_train_batch_end(self, trainer, task, outputs, batch: dict[str, Any], batch_idx: int) -> None:
        now = perf_counter()
        self.busy += now - self.last
        self.elapsed += now - self.last
        self.audio += task.seconds(batch) * trainer.world_size
        self.last, self.steps = now, self.steps + 1
        waiting = self.waited / max(self.waited + self.busy, 1e-9)
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:
            task.log_dict({"train/audio_s_per_s": self.audio / max(self.elapsed, 1e-9), "train/data_wait": waiting})
            self.audio = self.elapsed = 0.0
        if self.steps == self.window:
            if self.warm and waiting > self.share and not self.warned and trainer.is_global_zero:
                self.warned = True
                log.warning(
                    "data is the bottleneck: %.0f %% of the time goes into waiting for batches; raise data.workers, "
                    "put the recordings on a faster disk, or make them mono at the codec's rate",
                    100 * waiting,
                )
            self.waited, self.busy, self.steps, self.warm = 0.0, 0.0, 0, True

    def on_validation_start(self, *_: Any) -> None:
        self.last = None

    def on_save_checkpoint(self, *_: Any) -> None:
        self.last = None if self.last is None else perf_counter()
