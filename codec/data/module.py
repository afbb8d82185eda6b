"""From a corpus to batches: the LightningDataModule."""

import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.fabric.utilities.seed import pl_worker_init_function
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

from codec.data.augment import Augment, AugmentedCrops, AugmentedStream
from codec.data.base import Corpus, CorpusError, Stream, readable
from codec.data.ledger import Ledger

log = logging.getLogger(__name__)


class SpeechData(LightningDataModule):
    """Endless batches of training crops, and held-out clips for validation.

    A batch is a dict: wav [B, 1, T] float32, and the lists speaker, text, phones, file of length B (see
    base.py). Training is counted in steps (`max_steps`); there is no end of an epoch.

    **The Trainer needs `use_distributed_sampler=False`**: rank r of w already takes the draws r, r + w, r +
    2w, ... A resumed run goes on with the draw after the last one it trained on, also with another batch size
    or number of ranks; a streamed corpus cannot, and goes on in a new order.

    Every rank validates on the same clips, so that all agree on every number. Recordings that cannot be read
    are named once, counted in `ledger`, and end the run with a CorpusError when they are too many.

    Args:
        corpus: at the codec's sample rate.
        sample_rate: Hz, must be the corpus's.
        segment: seconds of a training crop.
        batch_size: crops per rank and step.
        workers: loader processes per rank; 0 loads in the training process.
        seed: of the order, the crops and the augmentation.
        val_clips, val_seconds: how many held-out recordings are kept in memory for validation, and how much
            of each.
        augment: applied to training crops only.
    """

    def __init__(
        self,
        corpus: Corpus,
        sample_rate: int,
        segment: float = 1.0,
        batch_size: int = 16,
        workers: int = 2,
        seed: int = 0,
        val_clips: int = 16,
        val_seconds: float = 10.0,
        augment: Augment | None = None,
    ):
        super().__init__()
        if corpus.sample_rate != sample_rate:
            raise CorpusError(f"the corpus gives {corpus.sample_rate} Hz and the codec wants {sample_rate} Hz.")
        self.corpus = corpus
        self.samples = round(segment * sample_rate)
        if self.samples < 1:
            raise CorpusError(f"a segment of {segment} s has no samples at {sample_rate} Hz.")
        self.batch_size = batch_size
        self.workers = workers
        self.seed = seed
        self.val_clips = val_clips
        self.val_seconds = val_seconds
        self.augment = augment
        self.ledger = Ledger(corpus.size)
        self._val_items: list[dict] | None = None
        self._restored = {"draws": 0, "step": 0}

    def setup(self, stage: str) -> None:
        self.ledger.add(self.corpus.bad)
        if self._val_items is None:
            skipped: list[tuple[str, str]] = []
            clips = self.corpus.clips("val", self.val_seconds)
            self._val_items = [self._at_least_a_segment(item) for item in readable(clips, skipped, self.val_clips)]
            self.ledger.add(skipped, [item["file"] for item in self._val_items])

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        crops = self.corpus.crops(self.samples, self.seed)
        streamed = isinstance(crops, Stream)
        if self.augment is not None:
            crops = (AugmentedStream if streamed else AugmentedCrops)(crops, self.augment, self.seed)
        if streamed:
            crops.place(rank, world, self.draws())
        return DataLoader(
            crops,
            batch_size=self.batch_size,
            sampler=None if streamed else Draws(self.draws, rank, world),
            num_workers=self.workers,  # a worker process limits its torch to one thread by itself
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            worker_init_fn=begin_worker,
        )

    def val_dataloader(self) -> DataLoader:
        if self._val_items is None:
            self.setup("validate")
        # a generator of its own, because a loader draws a number whenever it begins: a run that is resumed where a
        # validation was due would otherwise go on with other random numbers
        own = {"generator": torch.Generator(), "pin_memory": torch.cuda.is_available()}
        return DataLoader(self._val_items, batch_size=1, collate_fn=collate, **own)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        # The one place where the training process sees every batch before the step does.
        if isinstance(batch, dict):
            self.ledger.add(batch.pop("skipped", ()), batch.get("file", ()))
        return batch

    def teardown(self, stage: str) -> None:
        if self.ledger.bad:
            log.warning(self.ledger.summary())

    def draws(self) -> int:
        """Draws that all ranks together have trained on."""
        if not self.trainer:
            return self._restored["draws"]
        steps = self.trainer.global_step - self._restored["step"]
        per_step = self.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        return self._restored["draws"] + steps * per_step

    def state_dict(self) -> dict[str, int]:
        return {"draws": self.draws(), "step": self.trainer.global_step if self.trainer else 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._restored = dict(state_dict)

    def _at_least_a_segment(self, item: dict) -> dict:
        # The model and the losses are sure to work on a segment; a clip of 5 ms may be below their windows.
        missing = self.samples - item["wav"].shape[-1]
        return item | {"wav": F.pad(item["wav"], (0, max(0, missing)))}


class Draws(Sampler[int]):
    """The draw numbers of one rank, from where training stands when the loader begins."""

    def __init__(self, start: Callable[[], int], rank: int, world: int):
        self.start = start
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start() + self.rank, self.world)


def begin_worker(worker: int) -> None:
    """A loader process goes on when a signal asks the whole job to leave: the training process needs it to the end of
    its step, and ends it with a SIGTERM of its own. Seeded as Lightning seeds those without such a function."""
    pl_worker_init_function(worker)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS: nothing else says who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def collate(items: list[dict]) -> dict:
    """Items of one length -> a batch."""
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in ("speaker", "text", "phones", "file")}
    batch["wav"] = torch.stack([item["wav"] for item in items])  # [B, 1, T]
    batch["skipped"] = [bad for item in items for bad in item.get("skipped", ())]
    return batch
