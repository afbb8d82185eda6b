"""One of the processes of tests/test_ranks.py: trains a small codec as train.py does, and keeps what it has seen."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy

from codec.callbacks import EMA
from codec.data.folder import FolderCorpus
from codec.data.module import SpeechData
from codec.losses.balancer import Balancer
from codec.random_state import RandomState
from tests.test_task import small_task

RATE, SEGMENT = 800, 0.64  # Hz, s: 512 samples
EACH = 2  # examples per process and step


class Witness(Callback):
    """What happened: crops as digests, the gradients of the first step, codebooks whenever codes were replaced."""

    def __init__(self):
        self.crops: list[str] = []
        self.gradients: dict[str, torch.Tensor] = {}
        self.codebooks: list[torch.Tensor] = []
        self.draws: list[float] = []

    def on_train_batch_start(self, trainer, task, batch: dict[str, Any], batch_idx: int) -> None:
        self.crops += [hashlib.sha256(wav.numpy().tobytes()).hexdigest()[:16] for wav in batch["wav"]]

    def on_before_optimizer_step(self, trainer, task, optimizer) -> None:
        if trainer.global_step == 0:
            self.gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}

    def on_train_batch_end(self, trainer, task, *_: Any) -> None:
        self.codebooks.append(task.codec.quantizer.codebooks.clone())
        self.draws.append(float(torch.rand(())))


def train(
    speech: Path,
    steps: int,
    world: int = 1,
    hosts: int = 1,
    given: bool = False,
    workers: int = 0,
    balanced: bool = False,
):
    """A run -> what it ended with and what was seen, tensors and plain values.

    hosts: on which these processes are, as many on each.
    given: codebooks are given and stay alive, and nothing is random: several processes then compute what one does.
    """
    torch.set_num_threads(1)
    lightning.seed_everything(0, verbose=False)
    task = small_task(Balancer() if balanced else None, start=0 if given else 2)
    quantizer = task.codec.quantizer
    quantizer.check_every, quantizer.dropout = (0, 0.0) if given else (2, 0.5)
    quantizer.dead_below = 0.5  # so that codes do die within a few steps
    if given:
        quantizer.codebooks.copy_(torch.randn(quantizer.codebooks.shape, generator=torch.Generator().manual_seed(9)))
        quantizer.usage.fill_(1.0)
        quantizer.sums.copy_(quantizer.codebooks)
        quantizer.steps = 1
        task.losses.feature.normalize = False  # the one loss that is no mean over examples
    corpus = FolderCorpus(speech, RATE, holdout=0.25)
    data = SpeechData(corpus, RATE, SEGMENT, EACH if world > 1 else 2 * EACH, workers, val_clips=2)
    witness, ema = Witness(), EMA()
    strategy = DDPStrategy(gradient_as_bucket_view=True) if world > 1 else "auto"  # conf/trainer/ddp.yaml
    trainer = lightning.Trainer(
        accelerator="cpu", devices=world // hosts, num_nodes=hosts, strategy=strategy,
        max_steps=steps, val_check_interval=steps, check_val_every_n_epoch=None, num_sanity_val_steps=0,
        use_distributed_sampler=False, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[ema, RandomState(), witness],
    )  # fmt: skip
    trainer.fit(task, data)
    assert (trainer.global_step, trainer.world_size) == (steps, world)
    seen = {name: getattr(witness, name) for name in ("crops", "gradients", "codebooks", "draws")}
    state = {name: value for name, value in task.state_dict().items() if isinstance(value, torch.Tensor)}
    return {"state": state, "ema": ema.average, "steps": quantizer.steps, **seen}


def as_torchrun_says(rank: int, world: int, port: int) -> None:
    """The environment that torchrun gives to a process."""
    about = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    about |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in about.items()})


def process(rank: int, port: int, speech: str, out: str, options: dict[str, Any]) -> None:
    """One of two processes on this machine."""
    as_torchrun_says(rank, 2, port)
    torch.save(train(Path(speech), world=2, **options), Path(out, f"{rank}.pt"))


if __name__ == "__main__":  # one process of two hosts, under torchrun: ranks_task.py SPEECH OUT
    torch.save(train(Path(sys.argv[1]), 3, world=2, hosts=2), Path(sys.argv[2], f"{os.environ['RANK']}.pt"))
