"""Validation of a codec: metrics of held-out clips, and audio and spectrograms of some of them."""

import math
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from codec.evaluation.metrics.table import METRICS
from codec.evaluation.metrics.workers import score_clips
from codec.evaluation.spectrogram import comparison


class ValidationReport(Callback):
    """Logs metrics of the validation clips, and audio and spectrograms of the first ``shown``.

    ``val/METRIC`` is the mean over clips with a valid score, ``val/failed`` the number of failed scores. ``metrics``
    are keys of codec.evaluation.metrics.table.METRICS; mel_distance, which selects best.ckpt, is added.
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
        # A metric that failed on every clip is omitted rather than logged as NaN; `val/failed` counts it.
        means = {f"val/{name}": mean for name in metrics if (mean := scores[name].mean()) == mean}
        means.setdefault("val/mel_distance", math.inf)  # all failed: never the best checkpoint
        task.log_dict({**means, "val/failed": float(len(failures))}, sync_dist=True)
        if trainer.is_global_zero and not trainer.sanity_checking:
            for pair in self.pairs[: self.shown]:
                _log_clip(trainer, rate, *pair)
        self.pairs = []


def _log_clip(trainer: lightning.Trainer, rate: int, name: str, reference: np.ndarray, estimate: np.ndarray) -> None:
    step, audio = trainer.global_step, {"reference": reference, "decoded": np.nan_to_num(estimate.clip(-1, 1))}
    picture = comparison(reference, estimate, rate)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            for kind, wav in audio.items():
                logger.experiment.add_audio(f"{name}/{kind}", torch.from_numpy(wav)[None], step, rate)
            logger.experiment.add_image(f"{name}/spectrogram", picture, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            import wandb  # slow to import

            logged = {f"{name}/{kind}": wandb.Audio(wav, sample_rate=rate) for kind, wav in audio.items()}
            logged[f"{name}/spectrogram"] = wandb.Image(picture)
            logger.experiment.log({**logged, "trainer/global_step": step})
