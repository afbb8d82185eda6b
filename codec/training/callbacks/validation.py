"""Validation: scores of the held-out clips, and some of them to hear and see."""

import math
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from codec.evaluation.metrics.table import METRICS
from codec.evaluation.metrics.workers import score_clips
from codec.training.callbacks.spectrogram import spectrogram_figure


class ValidationReport(Callback):
    """Scores the validation clips with PESQ, STOI and the mel distance, and logs audio and pictures of the first few.

    Logs ``val/pesq_wb``, ``val/stoi`` and ``val/mel_distance`` (means over the clips that could be scored), and
    ``val/failed``, the number of scores that could not be computed.

    Args:
        metrics: names from codec.evaluation.metrics.table.METRICS; mel_distance is always among them: by it best.ckpt
            is chosen.
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
