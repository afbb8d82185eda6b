"""Phone probes: prediction of phones from single frames of latents by a linear map or an MLP.

A probe splits frames into parts, at least 50 per second (four per frame at 12.5 Hz). Targets: the phone at the middle
of each part, whose fixed times miss what a causal codec has a frame late, and the phone sequence by CTC, which fixes no
times: compare it first. Without neighbours, information spread over time is not found. A linear probe improves with the
number of channels alone, an MLP less: read both.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from codec.evaluation.judges.phone_edits import PhoneSegment, error_rate, phone_segments, transcript
from codec.evaluation.metrics.intervals import Interval, mean_interval
from codec.layers.ctc import ctc_loss
from codec.utils.errors import InputError
from codec.utils.fitting import seeded

RATE = 50.0  # Hz, of the parts of frames, at least
FRAME_STEPS, CTC_STEPS = 200, 400  # of training
FRAME_BATCH, CTC_BATCH = 16, 8  # recordings
LEARNING_RATE = 2e-2  # of 32 channels or fewer; of more it falls with the root of their number
LINEAR_CTC = 2.5  # factor of the learning rate of a linear map by CTC, which is slow to move


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a probe on recordings of new speakers: means over recordings, intervals over speakers."""

    accuracy: Interval  # share of the instants (50 or more per second, without pauses) whose phone is predicted
    error_rate: Interval  # phone error rate of the CTC probe; 1 for an empty transcript
    chance: float  # accuracy of always predicting the commonest phone
    phones: int  # different phones in the training


def probe(corpus: Any, split: str = "test", hidden: int | None = None, seed: int = 0) -> ProbeResult:
    """Train a phone probe on ``corpus.train``, measure it on ``corpus.clips(split)``.

    Items have ``latents`` ``[C, F]``, ``phones`` (symbol, start in s), ``speaker`` and ``samples``; the corpus has
    ``frame_rate`` and ``sample_rate`` in Hz. ``hidden`` is the width of the MLP's only hidden layer; None: the linear
    probe. ``seed`` is of weights and batches; results repeat on one machine. Raises InputError if there are no phones,
    or speakers of the test are in the training.
    """
    train, test = ([item for item in part if item["phones"]] for part in (corpus.train, corpus.clips(split)))
    if not train or not test:
        raise InputError("the phone probes need recordings with phones, for training and held out")
    if both := {item["speaker"] for item in train} & {item["speaker"] for item in test}:
        raise InputError(f"the phone probes need speakers held out, and {min(both)!r} is in both parts of the corpus")
    segments = [phone_segments(item["phones"], item["samples"] / corpus.sample_rate) for item in train]
    symbols = sorted({phone.symbol for phones in segments for phone in phones})
    latents = [item["latents"].float() for item in train]
    with seeded(seed):
        head = Head(len(latents[0]), len(symbols), corpus.frame_rate, hidden)
        ctc_head = train_heads(head, latents, segments, symbols)
    accuracies, rates, counts = [], [], torch.zeros(2 + len(symbols), dtype=torch.int64)
    for item in test:
        phones = phone_segments(item["phones"], item["samples"] / corpus.sample_rate)
        x = item["latents"].float()[None]
        labels = instant_labels(phones, symbols, x.shape[-1] * head.parts, head.rate)
        counts += torch.bincount(labels, minlength=len(counts))
        with torch.no_grad():
            predicted = 1 + head(x)[0, :, 1:].argmax(-1)
            hypothesis = transcript(ctc_head(x)[0], symbols, head.rate)
        accuracies.append(float((predicted == labels)[labels > 0].float().mean()))  # NaN if it is all pause
        rates.append(error_rate([phones], [hypothesis]) if phones else math.nan)
    speakers = [item["speaker"] for item in test]
    intervals = mean_interval(accuracies, speakers), mean_interval(rates, speakers)
    return ProbeResult(*intervals, float(counts[1:-1].max() / counts[1:].sum()), len(symbols))


class Head(nn.Module):
    """Probe: latents ``[B, C, F]`` -> logits ``[B, F * parts, 1 + phones]`` at ``rate`` Hz; label 0: pause or blank."""

    def __init__(self, dim: int, count: int, frame_rate: float, hidden: int | None):
        super().__init__()
        self.parts = max(1, -int(-RATE // frame_rate))
        self.rate, self.labels = frame_rate * self.parts, 1 + count
        outputs, self.linear = self.parts * self.labels, hidden is None
        self.map = nn.Linear(dim, outputs)
        if hidden is not None:
            self.map = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, outputs))

    def forward(self, latents: Tensor) -> Tensor:
        return self.map(latents.transpose(1, 2)).unflatten(-1, (self.parts, self.labels)).flatten(1, 2)


def train_heads(
    head: Head, latents: Sequence[Tensor], segments: Sequence[list[PhoneSegment]], symbols: Sequence[str]
) -> Head:
    """Train ``head`` in place on instants -> a copy trained further by CTC, which alone learns little but blanks."""
    labels = [instant_labels(p, symbols, x.shape[1] * head.parts, head.rate) for p, x in zip(segments, latents)]
    numbers = {symbol: i for i, symbol in enumerate(symbols, 1)}
    targets = [torch.tensor([numbers[phone.symbol] for phone in p], dtype=torch.int64) for p in segments]

    def frame_loss(logits: Tensor, batch: list[int]) -> Tensor:
        padded = pad_sequence([labels[i] for i in batch], batch_first=True, padding_value=-1)
        return F.cross_entropy(logits.flatten(0, 1), padded.flatten(), ignore_index=-1)

    def sequence_loss(logits: Tensor, batch: list[int]) -> Tensor:
        return ctc_loss(logits, torch.tensor([len(labels[i]) for i in batch]), [targets[i] for i in batch]).mean()

    rate = LEARNING_RATE * min(1.0, math.sqrt(32 / len(latents[0])))
    _fit(head, latents, frame_loss, FRAME_STEPS, FRAME_BATCH, rate)
    ctc_head = copy.deepcopy(head)
    _fit(ctc_head, latents, sequence_loss, CTC_STEPS, CTC_BATCH, rate * (LINEAR_CTC if head.linear else 1))
    return ctc_head


def _fit(
    head: Head,
    latents: Sequence[Tensor],
    loss: Callable[[Tensor, list[int]], Tensor],
    steps: int,
    size: int,
    rate: float,
) -> None:
    """Run ``steps`` of AdamW on ``loss(logits, indices of the recordings)``; leaves ``head`` in eval mode."""
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.1)
    for _ in range(steps):
        batch = torch.randint(len(latents), (size,)).tolist()
        x = pad_sequence([latents[i].t() for i in batch], batch_first=True)  # [B, F, C]
        optimizer.zero_grad()
        loss(head(x.transpose(1, 2)), batch).backward()
        optimizer.step()
        schedule.step()
    head.eval()


def instant_labels(phones: Sequence[PhoneSegment], symbols: Sequence[str], count: int, rate: float) -> Tensor:
    """Labels ``[count]`` at ``rate`` Hz: 0 is a pause, i is ``symbols[i - 1]``, ``1 + len(symbols)`` another phone."""
    numbers = {symbol: i for i, symbol in enumerate(symbols, 1)}
    labels = torch.zeros(count, dtype=torch.int64)
    for phone in phones:
        first, end = (max(0, round(time * rate)) for time in (phone.start, phone.end))  # middles: i + 1/2
        labels[first:end] = numbers.get(phone.symbol, 1 + len(symbols))
    return labels
