"""LightningDataModule of flow models: batches of latents with span masks and speaker prompts."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from codec.data.base import TRIES, CorpusError
from codec.data.crop_index import CropIndex
from codec.data.infinite_datamodule import InfiniteDataModule
from codec.flow.conditioning import Conditions
from codec.flow.masking import Spans, draw_prompt
from codec.latents.latent_corpus import LatentClips, LatentCorpus, collate
from codec.latents.paired_features import PairedFeatures

log = logging.getLogger(__name__)
FEWEST = 2  # frames of a recording: one to inpaint, and one for a prompt


class LatentData(InfiniteDataModule):
    """Infinite batches of latents with spans to inpaint for training, and a fixed set of held-out examples.

    A batch is that of :func:`codec.latents.latent_corpus.collate` with ``span`` ``[B, F]`` bool, true in frames to
    inpaint, and, if a condition needs it, ``prompt`` ``[B, C, P]`` and ``prompt_lengths`` ``[B]``. Recordings longer
    than ``max_seconds`` are cropped, at random positions in training; if a condition needs whole recordings, they are
    excluded, as are those that a condition cannot use; the log counts them. Validation has the same examples, spans and
    prompts on all ranks and every time.

    Args:
        prompt: shortest and longest prompt, in seconds.
        val_clips: number of held-out recordings for validation.
        features: a teacher's, of every training recording; training batches then have ``features`` ``[B, C', F]``.
        codes: of every recording; batches then have ``codes`` ``[B, K, F]`` int64. Both are zero-padded.
    """

    def __init__(
        self,
        corpus: LatentCorpus,
        condition: Conditions,
        spans: Spans,
        max_seconds: float,
        prompt: tuple[float, float] = (1.0, 3.0),
        batch_size: int = 16,
        workers: int = 2,
        seed: int = 0,
        val_clips: int = 64,
        features: PairedFeatures | None = None,
        codes: PairedFeatures | None = None,
    ):
        super().__init__(batch_size, workers, seed)
        self.corpus, self.condition, self.spans, self.prompt = corpus, condition, spans, prompt
        self.features, self.codes = features, codes
        self.max_frames, self.val_clips = int(max_seconds * corpus.frame_rate), val_clips
        if self.max_frames < FEWEST:
            raise CorpusError(f"max_seconds={max_seconds:g} is less than {FEWEST} frames at {corpus.frame_rate:g} Hz.")
        self.left_out: Counter[str] = Counter()  # reason -> number of recordings
        self._train: Examples | None = None
        self._val: list[dict[str, Any]] | None = None

    def setup(self, stage: str) -> None:
        if self._train is None:
            self._train = self._examples(self.corpus.train, self.seed)
            held_out = self._examples(self.corpus.clips("val"), 0, self.val_clips)
            self._val = [held_out.item(n, 0, np.random.default_rng((0, n))) for n in held_out.numbers.tolist()]
            if self.left_out:
                reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
                log.warning("%d recordings are left out: %s", self.left_out.total(), reasons)
            if not len(self._train.numbers):
                raise CorpusError("no recording of the corpus can be used: choose another text= or max_seconds.")

    def train_dataloader(self) -> DataLoader:
        self.setup("fit")
        return self.loader(self._train, collate_examples, example_bytes=4 * self.max_frames * self.corpus.dim)

    def val_dataloader(self) -> DataLoader:
        self.setup("validate")
        return DataLoader(self._val, self.batch_size, collate_fn=collate_examples, pin_memory=torch.cuda.is_available())

    def _examples(self, clips: LatentClips, seed: int, limit: int | None = None) -> "Examples":
        """Examples of the first ``limit`` recordings that can be used."""
        numbers = []
        for n, frames in enumerate(clips.lengths.tolist()):
            if len(numbers) == limit:
                break
            if frames < FEWEST:
                reason = "too short"
            elif self.condition.needs_whole and frames > self.max_frames:
                reason = f"longer than {self.max_frames / self.corpus.frame_rate:g} s"
            else:
                reason = self.condition.refusal(clips.about(n), frames)
            if reason:
                self.left_out[reason] += 1
            else:
                numbers.append(n)
        return Examples(clips, np.array(numbers, np.int64), seed, self)


class Examples(CropIndex):
    """Training examples by index: ds[n] for every n >= 0 depends on (seed, n) alone."""

    def __init__(self, clips: LatentClips, numbers: np.ndarray, seed: int, data: LatentData):
        super().__init__(numbers, clips.lengths[numbers], data.max_frames, seed)
        self.clips, self.frame_rate = clips, data.corpus.frame_rate
        self.spans, self.condition, self.prompt = data.spans, data.condition, data.prompt
        self.features, self.codes = data.features, data.codes

    def __getitem__(self, n: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, 1, n))
        slot = self.slot(n)
        for _ in range(TRIES):
            number, first = self.locate(slot, rng.random())
            item = self.item(number, first, rng)
            if not self.condition.refusal(item, len(item["span"])):  # a crop may be without phones
                if self.features is not None:
                    item["features"] = self.features.item(item["file"], first, len(item["span"]))
                return item
            slot = int(rng.integers(self.slots))
        raise CorpusError(f"{TRIES} crops in a row cannot be used (last: {item['file']}): raise max_seconds.")

    def item(self, number: int, first: int, rng: np.random.Generator) -> dict[str, Any]:
        """Example of recording ``number`` from frame ``first``, with its span and prompt."""
        item = self.clips.item(number, first, self.size)
        span = self.spans.draw(item["latents"].shape[1], self.frame_rate, rng)
        if self.condition.needs_prompt:
            wanted = max(1, round(rng.uniform(*self.prompt) * self.frame_rate))
            total = int(self.clips.lengths[number])
            span, begin, end = draw_prompt(span, first, total, wanted, rng)
            item["prompt"] = self.clips.item(number, begin, end - begin)["latents"]
        if self.codes is not None:
            item["codes"] = self.codes.item(item["file"], first, len(span))
        return item | {"span": torch.from_numpy(span)}


def collate_examples(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Examples -> a batch, zero-padded on the right; the padding is outside the spans."""
    batch = collate(items) | {"span": pad_sequence([item["span"] for item in items], batch_first=True)}
    for name in ("features", "codes", "prompt"):
        if name in items[0]:
            batch[name] = pad_sequence([item[name].t() for item in items], batch_first=True).transpose(1, 2)
    if "prompt" in items[0]:
        batch["prompt_lengths"] = torch.tensor([item["prompt"].shape[1] for item in items])
    return batch
