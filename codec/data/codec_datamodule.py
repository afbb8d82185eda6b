"""LightningDataModule of codec training: batches of crops, and clips for validation."""

import logging
from collections import deque
from typing import Any

import torch
from torch.utils.data import DataLoader

from codec.data.augment import Augment, AugmentedCrops, AugmentedStream
from codec.data.base import Corpus, CorpusError, Stream, readable
from codec.data.filling import filled
from codec.data.infinite_datamodule import InfiniteDataModule
from codec.data.read_errors import ReadErrors

log = logging.getLogger(__name__)

ENOUGH_CROPS = 16  # for a share of padding
MUCH_PADDING = 0.1  # share


class SpeechData(InfiniteDataModule):
    """Endless batches of training crops, and held-out clips for validation, the same on all ranks.

    A batch is a dict: wav [B, 1, T] float32, and lists speaker, text, phones, file of length B (see base.py). A resumed
    run continues with the next draw (`InfiniteDataModule`), with a streamed corpus in a new order. Unreadable
    recordings are logged once and counted in `read_errors`; too many raise CorpusError.

    Args:
        sample_rate: of codec and corpus, Hz.
        segment: duration of a training crop, seconds.
        batch_size: crops per rank and step.
        workers: loader processes per rank; 0 loads in the training process.
        val_clips, val_seconds: number and longest duration of the validation clips, which stay in memory.
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
        super().__init__(batch_size, workers, seed)
        if corpus.sample_rate != sample_rate:
            raise CorpusError(f"the corpus is at {corpus.sample_rate} Hz and the codec at {sample_rate} Hz.")
        self.corpus, self.augment = corpus, augment
        self.samples = round(segment * sample_rate)
        if self.samples < 1:
            raise CorpusError(f"a segment of {segment} s has no samples at {sample_rate} Hz.")
        self.val_clips, self.val_seconds = val_clips, val_seconds
        self.read_errors = ReadErrors(corpus.size)
        self._val_items: list[dict] | None = None
        self._padding: deque[float] = deque(maxlen=ENOUGH_CROPS)
        self._padding_said = False

    def setup(self, stage: str) -> None:
        self.read_errors.add(self.corpus.bad)
        if self._val_items is None:
            skipped: list[tuple[str, str]] = []
            clips, self._val_items = self.corpus.clips("val", self.val_seconds), []
            for item in readable(clips, skipped, self.val_clips):
                # A clip of 5 ms may be shorter than the windows of model and losses; a segment is not.
                samples = max(self.samples, item["wav"].shape[-1])
                self._val_items.append(filled(item, (), samples, self.corpus.sample_rate))
            self.read_errors.add(skipped, [item["file"] for item in self._val_items])

    def train_dataloader(self) -> DataLoader:
        crops = self.corpus.crops(self.samples, self.seed)
        if not self.rank_and_world[0]:  # after crops, which may read what a corpus has
            for name, fact in self.corpus.warnings().items():
                log.warning("%s: %s", name, fact)
        streamed = isinstance(crops, Stream)
        if self.augment is not None:
            crops = (AugmentedStream if streamed else AugmentedCrops)(crops, self.augment, self.seed)
        if streamed:
            crops.set_reader(*self.rank_and_world, self.draws())
        return self.loader(crops, collate, streamed, 4 * self.samples)

    def val_dataloader(self) -> DataLoader:
        if self._val_items is None:
            self.setup("validate")
        # A loader draws a random number when it starts; its own generator leaves the global one unchanged.
        options = {"generator": torch.Generator(), "pin_memory": torch.cuda.is_available()}
        return DataLoader(self._val_items, batch_size=1, collate_fn=collate, **options)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, dict):
            self.read_errors.add(batch.pop("skipped", ()), batch.get("file", ()))
            if self.trainer and self.trainer.training and self.trainer.is_global_zero:
                self._watch_padding(batch["padding"])
        return batch

    def teardown(self, stage: str) -> None:
        if self.read_errors.bad:
            log.warning(self.read_errors.summary())

    def _watch_padding(self, padding: torch.Tensor) -> None:
        """Warn once if crops repeat much of their own sound."""
        self._padding.extend(padding.tolist())
        share = sum(self._padding) / len(self._padding)
        if len(self._padding) == self._padding.maxlen and share > MUCH_PADDING and not self._padding_said:
            self._padding_said = True
            log.warning(
                f"{share:.0%} of the training sound is repeated, as recordings are shorter than segment= and no more "
                "of their speakers is known: lower segment, or name the speakers (dataset.speaker_from, a manifest)"
            )


def collate(items: list[dict]) -> dict:
    """Collate items of one length into a batch."""
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in ("speaker", "text", "phones", "file")}
    batch["wav"] = torch.stack([item["wav"] for item in items])  # [B, 1, T]
    batch["padding"] = torch.tensor([item.get("padding", 0.0) for item in items])
    batch["skipped"] = [bad for item in items for bad in item.get("skipped", ())]
    return batch
