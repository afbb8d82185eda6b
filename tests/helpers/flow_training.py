"""Training of a small flow model on latents in memory."""

from itertools import islice

import lightning
import torch

from codec.flow.datamodule import LatentData
from codec.flow.masking import Spans
from codec.flow.task import FlowTask
from codec.training.callbacks.ema import EMA
from codec.training.callbacks.nonfinite_guard import NonfiniteGuard
from codec.training.callbacks.progress import Throughput
from codec.training.callbacks.rng_state import RandomState
from codec.training.optim import Cosine, ParameterGroup, SingleOptimizer
from tests.helpers.flow_parts import conditioning, conditions, example, small_flow
from tests.helpers.latent_corpora import Corpus

ALL = ("aligned_phones", "phones", "prompt", "prompt_attention")


def small_task(*names: str, lr: float = 1e-3, **options) -> FlowTask:
    optimizer = SingleOptimizer(ParameterGroup(lr, (0.9, 0.99), 0.01, 1.0), Cosine())
    return FlowTask(small_flow(*names), optimizer, **options)


def batch(seed: int = 0) -> dict:
    latents, span = example(seed=seed)
    lengths = torch.tensor([20, 17])
    return {"latents": latents, "span": span, "lengths": lengths, "file": ["a", "b"]} | conditioning(seed=seed)


def one_pass(task: FlowTask, batch: dict, conditional=True, show_context=True) -> tuple[torch.Tensor, dict]:
    """A pass over a batch of two with fixed noise and times."""
    generator, flags = torch.Generator().manual_seed(3), torch.ones(2, dtype=torch.bool)
    x0 = torch.randn(batch["latents"].shape, generator=generator)
    return task.one_pass(batch, x0, torch.tensor([0.3, 0.6]), flags & conditional, flags & show_context)


def latent_data(corpus=None, condition=(), max_seconds=0.5, **options) -> LatentData:
    options = dict(batch_size=3, workers=0, val_clips=4, prompt=(0.05, 0.1)) | options
    spans = Spans(seconds=(0.03, 0.15), every=0.25)
    return LatentData(corpus or Corpus(), conditions(*condition), spans, max_seconds, **options)


def batches(data: LatentData, count: int) -> list[dict]:
    return list(islice(data.train_dataloader(), count))


def fit(task: FlowTask, steps: int, folder, callbacks=(), ckpt_path=None, features=None, **options):
    """The trainer, after so many steps."""
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    quiet |= dict(accelerator="cpu", log_every_n_steps=1, num_sanity_val_steps=0, val_check_interval=2)
    options = quiet | dict(check_val_every_n_epoch=None, use_distributed_sampler=False) | options
    callbacks = [RandomState(), NonfiniteGuard(str(folder)), Throughput(), *(callbacks or [EMA(0.5)])]
    trainer = lightning.Trainer(max_steps=steps, callbacks=callbacks, default_root_dir=folder, **options)
    data = latent_data(condition=ALL, max_seconds=0.3, batch_size=2, val_clips=64, features=features)
    trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer
