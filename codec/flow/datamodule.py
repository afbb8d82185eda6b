"""From the latents of a corpus to batches for a flow model: the LightningDataModule."""

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
LEAST = 2  # frames of a recording: one to fill in, and one for a prompt


class LatentData(InfiniteDataModule):
    """Endless batches of training examples, and held-out ones for validation.

    A batch is that of :func:`codec.latents.latent_corpus.collate` with span ``[B, F]`` bool, true where the model is
    to fill in, and where a condition asks for one with prompt ``[B, C, P]`` and prompt_lengths ``[B]``.

    Recordings longer than ``max_seconds`` are cut, at random places in training, unless a condition wants them whole:
    then they are left out, like those that it cannot be told about; how many, is said in one line. Every rank validates
    on the same examples, with the same spans and prompts every time.

    Args:
        corpus: of latents.
        condition: what the model is told.
        spans: what is hidden.
        max_seconds: of an example.
        prompt: shortest and longest prompt, in seconds.
        val_clips: how many held-out recordings serve for validation.
        features: what a teacher hears in every recording for training; a training batch then has ``features``
            ``[B, C', F]``, with zeros on the right.
        codes: of every recording; a batch then has ``codes`` ``[B, K, F]`` int64, likewise.
        batch_size, workers, seed: see :class:`codec.data.infinite_datamodule.InfiniteDataModule`.
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
        if self.max_frames < LEAST:
            raise CorpusError(f"max_seconds={max_seconds:g} are fewer than {LEAST} frames of {corpus.frame_rate:g} Hz.")
        self.left_out: Counter[str] = Counter()  # reason -> recordings
        self._train: Examples | None = None
        self._val: list[dict[str, Any]] | None = None

    def setup(self, stage: str) -> None:
        if self._train is None:
            self._train = self._examples(self.corpus.train, self.seed)
            held = self._examples(self.corpus.clips("val"), None, self.val_clips)
            self._val = [held.item(n, 0, np.random.default_rng((0, n))) for n in held.numbers.tolist()]
            if self.left_out:
                reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
                log.warning("%d recordings are left out: %s", self.left_out.total(), reasons)
            if not len(self._train.numbers):
                raise CorpusError("no recording of the corpus can be used: choose another condition= or max_seconds.")

    def train_dataloader(self) -> DataLoader:
        self.setup("fit")
        return self.loader(self._train, collated)

    def val_dataloader(self) -> DataLoader:
        self.setup("validate")
        return DataLoader(self._val, self.batch_size, collate_fn=collated, pin_memory=torch.cuda.is_available())

    def _examples(self, clips: LatentClips, seed: int | None, limit: int | None = None) -> "Examples":
        numbers = []
        for n, frames in enumerate(clips.lengths.tolist()):
            if len(numbers) == limit:
                break
            if reason := self._refusal(clips.about(n), frames):
                self.left_out[reason] += 1
            else:
                numbers.append(n)
        numbers = np.array(numbers, np.int64)
        return Examples(clips, numbers, self.max_frames, seed or 0, self)

    def _refusal(self, item: dict[str, Any], frames: int) -> str:
        if frames < LEAST:
            return "too short"
        if self.condition.whole and frames > self.max_frames:
            return f"longer than {self.max_frames / self.corpus.frame_rate:g} s"
        return self.condition.refusal(item, frames)


class Examples(CropIndex):
    """ds[n] for every n >= 0, a function of (seed, n) alone."""

    def __init__(self, clips: LatentClips, numbers: np.ndarray, frames: int, seed: int, data: LatentData):
        super().__init__(numbers, clips.lengths[numbers], frames, seed)
        self.clips, self.frame_rate = clips, data.corpus.frame_rate
        self.spans, self.condition = data.spans, data.condition
        self.prompt = data.prompt if data.condition.prompted else None
        self.features, self.codes = data.features, data.codes

    def __getitem__(self, n: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, 1, n))
        slot = self.slot(n)
        for _ in range(TRIES):
            number, first = self.locate(slot, rng.random())
            item = self.item(number, first, rng)
            if not self.condition.refusal(item, len(item["span"])):  # nothing may be said in a piece of a recording
                if self.features is not None:
                    item["features"] = self.features.item(item["file"], first, len(item["span"]))
                return item
            slot = int(rng.integers(self.slots))
        raise CorpusError(f"{TRIES} pieces in a row cannot be used (last: {item['file']}): raise max_seconds.")

    def item(self, number: int, first: int, rng: np.random.Generator) -> dict[str, Any]:
        """An example: recording ``number`` from frame ``first`` on, with its span and prompt."""
        item = self.clips.item(number, first, self.size)
        span = self.spans.draw(item["latents"].shape[1], self.frame_rate, rng)
        if self.prompt:
            wanted = max(1, round(rng.uniform(*self.prompt) * self.frame_rate))
            total = int(self.clips.lengths[number])
            span, begin, end = draw_prompt(span, first, total, wanted, rng)
            item["prompt"] = self.clips.item(number, begin, end - begin)["latents"]
        if self.codes is not None:
            item["codes"] = self.codes.item(item["file"], first, len(span))
        return item | {"span": torch.from_numpy(span)}


def collated(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Examples -> a batch, with zeros and no span on the right of the shorter ones."""
    batch = collate(items) | {"span": pad_sequence([item["span"] for item in items], batch_first=True)}
    for name in (name for name in ("features", "codes") if name in items[0]):
        batch[name] = pad_sequence([item[name].t() for item in items], batch_first=True).transpose(1, 2)
    if "prompt" in items[0]:
        prompts = [item["prompt"] for item in items]
        batch["prompt"] = pad_sequence([prompt.t() for prompt in prompts], batch_first=True).transpose(1, 2)
        batch["prompt_lengths"] = torch.tensor([prompt.shape[1] for prompt in prompts])
    return batch
