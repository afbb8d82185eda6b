"""What the processes of tests/training/test_ranks.py do: train a small codec as train.py does, and keep what they
have seen."""

import hashlib
import os
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from codec.data import hf_stream
from codec.data.base import Corpus
from codec.data.codec_datamodule import SpeechData
from codec.data.folder import FolderCorpus
from codec.distillation.cosine import Distillation
from codec.distillation.teachers.random import RandomTeacher
from codec.losses.adversarial import LeastSquares
from codec.losses.balancer import Balancer
from codec.training.callbacks.ema import EMA
from codec.training.callbacks.rng_state import RandomState
from codec.training.codec_task import CodecTask
from tests.helpers.training import small_task

RATE, SEGMENT = 800, 0.64  # Hz, s: 512 samples
EACH = 2  # examples per process and step


class Witness(Callback):
    """What happened: crops as digests and their files, the gradients of the first step, codebooks after every step."""

    def __init__(self):
        self.crops: list[str] = []
        self.files: list[str] = []
        self.gradients: dict[str, torch.Tensor] = {}
        self.codebooks: list[torch.Tensor] = []
        self.draws: list[float] = []

    def on_train_batch_start(self, trainer, task, batch: dict[str, Any], batch_idx: int) -> None:
        self.crops += [digest(wav) for wav in batch["wav"]]
        self.files += batch["file"]

    def on_before_optimizer_step(self, trainer, task, optimizer) -> None:
        if trainer.global_step == 0:
            self.gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}

    def on_train_batch_end(self, trainer, task, *_: Any) -> None:
        self.codebooks.append(task.codec.quantizer.codebooks.clone())
        self.draws.append(float(torch.rand(())))


def digest(wav: torch.Tensor) -> str:
    return hashlib.sha256(wav.float().numpy().tobytes()).hexdigest()[:16]


def folder_data(folder: Path, batch: int, workers: int = 0) -> SpeechData:
    """9 recordings of 3 crops to train on: no number of examples per step here divides them."""
    return SpeechData(FolderCorpus(folder, RATE, holdout=0.25), RATE, SEGMENT, batch, workers, val_clips=2)


def fit(task: CodecTask, data: SpeechData, steps: int, world: int, hosts: int = 1, **options: Any) -> dict[str, Any]:
    """A run -> what it ended with and what was seen: tensors and plain values."""
    witness, ema = Witness(), EMA()
    trainer = lightning.Trainer(
        accelerator="cpu", devices=world // hosts, num_nodes=hosts, strategy="ddp" if world > 1 else "auto",
        max_steps=steps, val_check_interval=steps, check_val_every_n_epoch=None, num_sanity_val_steps=0,
        use_distributed_sampler=False, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[ema, RandomState(), witness], **options,
    )  # fmt: skip
    trainer.fit(task, data)
    assert (trainer.global_step, trainer.world_size) == (steps, world)
    state = {name: value for name, value in task.state_dict().items() if isinstance(value, torch.Tensor)}
    seen = {name: getattr(witness, name) for name in ("crops", "files", "gradients", "codebooks", "draws")}
    return {"state": state, "ema": ema.average, "steps": task.codec.quantizer.steps, **seen}


def long_run(rank: int, folder: str, steps: int, workers: int = 0, hosts: int = 1) -> dict[str, Any]:
    """One of two processes: discriminators from the third step on, quantizer dropout, codes that die."""
    lightning.seed_everything(0, verbose=False)
    task = small_task(start=2, members=("msstft",))
    quantizer = task.codec.quantizer
    quantizer.dropout, quantizer.dead_below = 0.5, 0.5  # so that codes do die within a few steps
    return fit(task, folder_data(Path(folder), EACH, workers), steps, 2, hosts)


def streamed(rank: int, corpus: Corpus, steps: int) -> dict[str, Any]:
    """One of two processes, on a stream whose shuffling does not mix its passes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf_stream, "SHUFFLE", 1)
        return fit(small_task(members=()), SpeechData(corpus, RATE, SEGMENT, EACH, 0, val_clips=2), steps, 2)


def given(rank: int, folder: str, exact: bool, world: int = 2) -> dict[str, Any]:
    """A run in which nothing is random: codebooks are given and stay alive. With a teacher.

    exact: three steps with the balancer, all of it in fp64, the islands of fp32 too: what differs then is not rounding.
    In fp32 one step, with another loss, as the hinge of untrained discriminators is a difference of two gradients 50
    times as long as itself.
    """
    lightning.seed_everything(0, verbose=False)
    task = small_task(Balancer(reference_batch=8)) if exact else small_task(None, LeastSquares())
    task.distillation = Distillation(RandomTeacher(8, 1), 8, RATE, 100)
    quantizer = task.codec.quantizer
    quantizer.check_every = 0
    quantizer.codebooks.copy_(torch.randn(quantizer.codebooks.shape, generator=torch.Generator().manual_seed(9)))
    quantizer.usage.fill_(1.0)
    quantizer.sums.copy_(quantizer.codebooks)
    quantizer.steps = 1
    data = folder_data(Path(folder), EACH * 2 // world)
    if not exact:
        return fit(task, data, 1, world)
    single = torch.Tensor.float
    with pytest.MonkeyPatch.context() as patch:  # what asks for fp32 keeps fp64
        patch.setattr(torch.Tensor, "float", lambda x: x if x.dtype == torch.float64 else single(x))
        task.distillation.teacher.double()
        return fit(task, data, 3, world, precision="64-true")


def on_a_host(folder: str, out: str) -> None:
    """The only process of one of two hosts, under torchrun's agent."""
    rank = os.environ["RANK"]
    torch.save(long_run(int(rank), folder, 3, hosts=2), Path(out, f"{rank}.pt"))
