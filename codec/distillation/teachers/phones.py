"""A supervised phone teacher, trained on speech with known phones and times (compare PAST, arXiv 2505.14470).

It needs no download. Trained on eSpeak NG's speech it knows no other: results with it are about the mechanism.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.distillation.teachers import network
from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.network import FRAME_RATE, SAMPLE_RATE, FrameNetwork
from codec.utils.cache import Stored, cache_dir, cache_key, cached_tensors, corpus_fingerprint
from codec.utils.fitting import fit, seeded, shift_bands

log = logging.getLogger(__name__)

VERSION = 1  # of the training, part of cache keys: increase it with every change here
CROP = 2 * SAMPLE_RATE  # samples of a training example
CROPS = 2000  # training examples, at most: an hour
BATCH = 16
LEARNING_RATE = 2e-3
WARMUP = 50  # steps
SHIFT = 4  # mel bands


class PhoneTeacher(Teacher):
    """The last hidden layer of a frame-wise phone classifier, trained on first use and cached in the user's folder.

    Args:
        corpus: map-style at 16 kHz, whose items have ``phones`` (codec/data/base.py). Should hold out whole speakers.
        width: channels of the features.
        steps: of training, with 16 crops of 2 s each.

    Attributes:
        accuracy: share of the held-out clips' frames with the right phone; frames without a phone, or with one that
            training did not have, count as errors.
        chance: the accuracy of always predicting the commonest phone.
    """

    def __init__(self, corpus: Any, width: int = 256, blocks: int = 6, steps: int = 800, seed: int = 0):
        if corpus.sample_rate != SAMPLE_RATE:
            raise ValueError(
                f"the phone teacher learns at {SAMPLE_RATE} Hz and its corpus gives {corpus.sample_rate} Hz: set "
                f"distill.teacher.corpus.sample_rate={SAMPLE_RATE}."
            )
        crops = corpus.crops(CROP, seed)
        name = cache_key(VERSION, network.VERSION, corpus_fingerprint(crops), width, blocks, steps, seed)
        path = cache_dir() / "teachers" / f"phones-{name}.safetensors"
        with seeded(seed):
            frames = FrameNetwork(width, blocks)
            weights, about = cached_tensors(path, lambda: learn(frames, crops, corpus.clips("val"), steps))
        frames.load_state_dict(weights)
        super().__init__(frames, width, FRAME_RATE, f"phones-{name}")
        self.accuracy, self.chance = float(about["accuracy"]), float(about["chance"])
        log.info(
            "supervised phone teacher: accuracy %.1f %% on held-out frames, %s phones (commonest phone: %.1f %%)",
            100 * self.accuracy,
            about["phones"],
            100 * self.chance,
        )


def learn(frames: FrameNetwork, crops: Any, clips: Sequence[dict], steps: int) -> Stored:
    """Train ``frames`` in place; returns its weights, and "accuracy", "chance" and number of "phones" as text."""
    log.info("training the supervised phone teacher, %d steps", steps)
    items = [crops[n] for n in range(min(CROPS, BATCH * steps))]
    vocabulary = {symbol: i for i, symbol in enumerate(sorted({s for item in items for s, _ in item["phones"]}))}
    if not vocabulary or not len(clips):
        raise ValueError(
            "the phone teacher needs a corpus with phones and with held-out clips to be measured on: use the espeak "
            "corpus, with holdout above 0."
        )
    with torch.no_grad():
        mels = torch.cat([frames.log_mel(item["wav"]) for item in items])  # [N, MELS, F']
    truth = torch.stack([labels(item, vocabulary) for item in items])  # [N, F']
    head = nn.Linear(frames.norm.normalized_shape[0], len(vocabulary))

    def loss() -> Tensor:
        batch = torch.randint(len(mels), (BATCH,))
        # the one augmentation that helps: from 49 % to 64 % of held-out frames after 300 steps; noise makes it worse
        hidden = F.dropout(frames.encode(shift_bands(mels[batch], SHIFT)), 0.1)
        return F.cross_entropy(head(hidden).flatten(0, 1), truth[batch].flatten(), ignore_index=-1)

    fit(loss, [*frames.parameters(), *head.parameters()], steps, LEARNING_RATE, WARMUP, weight_decay=0.05)
    return frames.state_dict(), evaluated(frames, head, clips, vocabulary)


@torch.no_grad()
def evaluated(
    frames: FrameNetwork, head: nn.Linear, clips: Sequence[dict], vocabulary: dict[str, int]
) -> dict[str, str]:
    truth = [labels(item, vocabulary) for item in clips]
    predicted = [head(frames(item["wav"]))[0].argmax(-1) for item in clips]
    right = sum(int((a == b).sum()) for a, b in zip(predicted, truth, strict=True))
    counts = torch.bincount(torch.cat(truth) + 1, minlength=2)  # first the frames without a phone
    total = int(counts.sum())
    return {
        "accuracy": str(right / total),
        "chance": str(int(counts[1:].max()) / total),
        "phones": str(len(vocabulary)),
    }


def labels(item: dict, vocabulary: dict[str, int]) -> Tensor:
    """The index of the phone at the centre of each frame, ``[F']`` int64; -1 for none or an unknown one."""
    count = math.ceil(item["wav"].shape[-1] * FRAME_RATE / SAMPLE_RATE)
    starts = torch.tensor([start for _, start in item["phones"]])
    indices = torch.tensor([-1, *(vocabulary.get(symbol, -1) for symbol, _ in item["phones"])])
    centres = (torch.arange(count) + 0.5) / FRAME_RATE  # seconds
    return indices[torch.searchsorted(starts, centres, right=True)]
