"""What happens around the training step: averaged weights, the progress bar, and what validation shows."""

import math
from time import perf_counter
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import nn

from codec.metrics.pool import score_clips
from codec.metrics.table import METRICS
from codec.spectrogram import spectrogram_figure


class EMA(Callback):
    """Exponential moving average of the parameters (not of the buffers) of the part that the task calls ``averaged``:
    the codec's, not the discriminators'.

    Validation runs on the averaged weights. They are saved in the checkpoint under ``ema``, apart from the state_dict,
    which keeps the raw weights for resuming.

    Args:
        decay: per optimiser step; while step n is small, at most (1 + n) / (10 + n). A step that was skipped as not
            finite leaves the average alone.
    """

    def __init__(self, decay: float = 0.999):
        self.decay = decay
        self.average: dict[str, torch.Tensor] | None = None
        self.last_step = -1
        self.swapped = False

    def on_fit_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        start = {name: p.detach().clone() for name, p in _averaged(task).named_parameters()}
        if self.average is not None:  # restored from a checkpoint, on the CPU
            start = {name: self.average[name].to(p.device, p.dtype) for name, p in start.items()}
        self.average = start

    def on_train_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self.last_step = trainer.global_step  # restored only now

    @torch.no_grad()
    def on_train_batch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self.last_step:  # gradients are still being accumulated
            return
        self.last_step = step
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(_averaged(task).named_parameters())
        averages = list(self.average.values())
        steps = torch._foreach_sub([parameters[name].detach() for name in self.average], averages)
        torch._foreach_mul_(steps, (1 - decay) * (1 - task.skipped))  # on the device: nobody waits for it
        torch._foreach_add_(averages, steps)

    @torch.no_grad()
    def _swap(self, task: lightning.LightningModule, swapped: bool) -> None:
        if self.average is None or self.swapped == swapped:
            return
        for name, p in _averaged(task).named_parameters():
            raw = p.detach().clone()
            p.copy_(self.average[name])
            self.average[name].copy_(raw)
        self.swapped = swapped

    def on_validation_start(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self._swap(task, True)

    def on_validation_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        self._swap(task, False)

    def on_exception(
        self, trainer: lightning.Trainer, task: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._swap(task, False)  # an interrupted validation must not leave averaged weights behind

    def on_save_checkpoint(self, trainer, task, checkpoint: dict[str, Any]) -> None:
        if self.average is None:
            return
        if self.swapped:  # a signal saves in the middle of a validation: put both back in their places
            weights, average, part = checkpoint["state_dict"], self.average, task.averaged
            checkpoint["ema"] = {name: weights[f"{part}.{name}"] for name in average}
            weights.update({f"{part}.{name}": raw for name, raw in average.items()})
        else:
            checkpoint["ema"] = dict(self.average)

    def on_load_checkpoint(self, trainer, task, checkpoint: dict[str, Any]) -> None:
        self.average = checkpoint.get("ema")


def _averaged(task: lightning.LightningModule) -> nn.Module:
    return getattr(task, task.averaged)


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


class ValidationReport(Callback):
    """Scores the validation clips with PESQ, STOI and the mel distance, and logs audio and pictures of the first few.

    Logs ``val/pesq_wb``, ``val/stoi`` and ``val/mel_distance`` (means over the clips that could be scored), and
    ``val/failed``, the number of scores that could not be computed.

    Args:
        metrics: names from codec.metrics.table.METRICS; mel_distance is always among them: by it best.ckpt is chosen.
        shown: clips whose audio and spectrogram are logged.
    """

    def __init__(self, metrics: tuple[str, ...] = ("pesq_wb", "stoi", "mel_distance"), shown: int = 3):
        unknown = sorted(set(metrics) - set(METRICS))
        if unknown:
            raise ValueError(f"unknown metrics {unknown}; there are {sorted(METRICS)}")
        self.metrics, self.shown = tuple(dict.fromkeys((*metrics, "mel_distance"))), shown
        self.pairs: list[tuple[str, Any, Any]] = []

    def on_validation_epoch_start(self, trainer, task) -> None:
        self.pairs = []

    def on_validation_batch_end(self, trainer, task, outputs, batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        reference, estimate = batch["wav"].float().cpu().numpy(), outputs.float().cpu().numpy()
        self.pairs += zip(batch["file"], reference[:, 0], estimate[:, 0], strict=True)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, task: lightning.LightningModule) -> None:
        rate = task.codec.sample_rate
        metrics = {name: METRICS[name] for name in self.metrics}
        scores, failures = score_clips(self.pairs, rate, metrics=metrics, workers=0)
        # A metric that failed on every clip is left out rather than logged as NaN: `val/failed` counts it.
        means = {f"val/{name}": mean for name in metrics if (mean := scores[name].mean()) == mean}
        means.setdefault("val/mel_distance", math.inf)  # no clip has a score: the worst there is
        task.log_dict({**means, "val/failed": float(len(failures))}, sync_dist=True)
        if trainer.is_global_zero and not trainer.sanity_checking:
            for name, reference, estimate in self.pairs[: self.shown]:
                self._show(trainer, name, reference, estimate, rate)
        self.pairs = []

    def _show(self, trainer: lightning.Trainer, name: str, reference: Any, estimate: Any, rate: int) -> None:
        figure, step = spectrogram_figure(reference, estimate, rate), trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                board = logger.experiment
                board.add_audio(f"{name}/decoded", torch.from_numpy(estimate)[None].clamp(-1, 1), step, rate)
                board.add_audio(f"{name}/reference", torch.from_numpy(reference)[None], step, rate)
                board.add_figure(f"{name}/spectrogram", figure, step)
            elif isinstance(logger, WandbLogger):
                import wandb  # optional at run time: only with logger=wandb

                audio = {"reference": reference, "decoded": estimate}
                logged = {f"{name}/{k}": wandb.Audio(v.clip(-1, 1), sample_rate=rate) for k, v in audio.items()}
                logger.experiment.log(
                    {**logged, f"{name}/spectrogram": wandb.Image(figure), "trainer/global_step": step}
                )
