"""A training run that learns nothing and records its batches."""

from pathlib import Path

import torch
from lightning import LightningDataModule, LightningModule, Trainer


class Listener(LightningModule):
    """`heard`: the waveforms of the training batches; `validated`: the files of the validation batches."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.heard: list[torch.Tensor] = []
        self.validated: list[str] = []

    def training_step(self, batch, number):
        assert "skipped" not in batch
        self.heard.append(batch["wav"])
        return self.weight * batch["wav"].mean()

    def validation_step(self, batch, number):
        self.validated += batch["file"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(
    data: LightningDataModule, steps: int, folder: Path, checkpoint=None, listener=None, **options
) -> tuple[Trainer, Listener]:
    listener = listener or Listener()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    options |= {"use_distributed_sampler": False, "num_sanity_val_steps": 0, "accelerator": "cpu"} | quiet
    trainer = Trainer(max_steps=steps, max_epochs=-1, default_root_dir=folder, **options)
    trainer.fit(listener, data, ckpt_path=checkpoint)
    return trainer, listener
