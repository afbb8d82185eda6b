"""Phone probes: how much of what is said can be read off single frames of latents, by a linear map and by an MLP.

A latent frame of 80 ms holds one phone, or two, or parts of three: "the phone of a frame" is no fair question, and
would be a different one at each frame rate. So a probe splits each frame into as many parts as make 50 per second
(four at 12.5 Hz) and is asked twice:

- for the phone that sounds in the middle of each part. The instants are the same at all frame rates; but latents of a
  causal codec may hold a phone a frame late, and then this question, which fixes the time, misses it.
- for the sequence of phones, by CTC, which does not fix the time, as edits per phone. Compare this one first.

A probe sees one frame, no neighbours: what it cannot find may still be there, spread out in time. A linear probe gets
better with the number of channels alone, an MLP less so: read both. Speakers of the test are not in the training.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.distillation.teachers.base import seeded
from codec.evaluation.judges.ctc import ctc_loss, transcript
from codec.evaluation.judges.phone_edits import Said, edits_within, said
from codec.evaluation.metrics.intervals import Interval, bootstrap
from codec.utils.errors import InputError

RATE = 50.0  # Hz, of the parts of frames, at least
NAMING, SPELLING = 200, 400  # steps of training, to name instants and to spell
NAMED, SPELLED = 16, 8  # recordings in a batch
LEARNING_RATE = 2e-2  # of 32 channels or fewer; of more it falls with the root of their number
BOLD = 2.5  # times as much for a linear map when it learns to spell, which is slow to move
ALWAYS = (0.0, math.inf)


@dataclass(frozen=True)
class Probed:
    """What a probe found in recordings of new speakers; intervals are over speakers, the means over recordings.

    Attributes:
        accuracy: share of the instants (50 per second, pauses left out) whose phone is named.
        error_rate: phone error rate of the CTC probe.
        chance: the accuracy of always naming the commonest phone; the CTC probe's is 1, for saying nothing.
        phones: different phones in the training.
    """

    accuracy: Interval
    error_rate: Interval
    chance: float
    phones: int


def probe(corpus: Any, split: str = "test", hidden: int | None = None, seed: int = 0) -> Probed:
    """Train on ``corpus.train``, measure on ``corpus.clips(split)``.

    Args:
        corpus: with ``train`` and ``clips(split)``, sequences of items that have ``latents`` ``[C, F]``, ``phones``
            (symbol, start in s), ``speaker`` and ``samples``; and with ``frame_rate`` and ``sample_rate`` in Hz.
        hidden: width of the MLP's only hidden layer; None is the linear probe.
        seed: of weights and batches; the same gives the same numbers on one machine.

    Raises:
        InputError: if there are no phones, or speakers of the test are in the training, too.
    """
    train, test = corpus.train, corpus.clips(split)
    train, test = ([item for item in part if item["phones"]] for part in (train, test))
    if not train or not test:
        raise InputError("the phone probes need recordings with phones, for training and held out")
    if both := {item["speaker"] for item in train} & {item["speaker"] for item in test}:
        raise InputError(f"the phone probes need speakers held out, and {min(both)!r} is in both parts of the corpus")
    truth = [said(item["phones"], item["samples"] / corpus.sample_rate) for item in train]
    symbols = sorted({phone.symbol for phones in truth for phone in phones})
    latents = [item["latents"].float() for item in train]
    with seeded(seed):
        head = Head(len(latents[0]), len(symbols), corpus.frame_rate, hidden)
        sequence = learn(head, latents, truth, symbols)
    accuracies, rates, seen = [], [], torch.zeros(2 + len(symbols), dtype=torch.int64)
    for item in test:
        phones, x = said(item["phones"], item["samples"] / corpus.sample_rate), item["latents"].float()[None]
        labels = named(phones, symbols, x.shape[-1] * head.parts, head.rate)
        seen += torch.bincount(labels, minlength=len(seen))
        with torch.no_grad():
            guesses = 1 + head(x)[0, :, 1:].argmax(-1)
            edits = edits_within(phones, transcript(sequence(x)[0], symbols, head.rate), ALWAYS)
        accuracies.append(float((guesses == labels)[labels > 0].float().mean()))  # NaN if it is all pause
        rates.append(edits.edits / edits.phones if edits.phones else math.nan)
    speakers = [item["speaker"] for item in test]
    intervals = bootstrap(accuracies, groups=speakers), bootstrap(rates, groups=speakers)
    return Probed(*intervals, float(seen[1:-1].max() / seen[1:].sum()), len(symbols))


class Head(nn.Module):
    """Latents ``[B, C, F]`` -> logits ``[B, F * parts, 1 + phones]`` at ``rate`` Hz; 0 is a pause, or blank."""

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


def learn(head: Head, latents: Sequence[Tensor], truth: Sequence[list[Said]], symbols: Sequence[str]) -> Head:
    """Train ``head`` in place to name instants -> another that was trained from there on by CTC, which by itself learns
    next to nothing but blanks from single frames."""
    names = [named(phones, symbols, x.shape[1] * head.parts, head.rate) for phones, x in zip(truth, latents)]
    numbers = {symbol: i for i, symbol in enumerate(symbols, 1)}
    targets = [torch.tensor([numbers[phone.symbol] for phone in phones]) for phones in truth]

    def naming(logits: Tensor, drawn: list[int]) -> Tensor:
        labels = nn.utils.rnn.pad_sequence([names[i] for i in drawn], batch_first=True, padding_value=-1)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)

    def spelling(logits: Tensor, drawn: list[int]) -> Tensor:
        return ctc_loss(logits, torch.tensor([len(names[i]) for i in drawn]), [targets[i] for i in drawn])

    rate = LEARNING_RATE * min(1.0, math.sqrt(32 / len(latents[0])))
    fit(head, latents, naming, NAMING, NAMED, rate)
    sequence = copy.deepcopy(head)
    fit(sequence, latents, spelling, SPELLING, SPELLED, rate * (BOLD if head.linear else 1))
    return sequence


def fit(
    head: Head,
    latents: Sequence[Tensor],
    loss: Callable[[Tensor, list[int]], Tensor],
    steps: int,
    batch: int,
    rate: float,
) -> None:
    """``steps`` of AdamW on ``loss(logits, numbers of the recordings)``; leaves ``head`` in eval mode."""
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.1)
    for _ in range(steps):
        drawn = torch.randint(len(latents), (batch,)).tolist()
        x = nn.utils.rnn.pad_sequence([latents[i].t() for i in drawn], batch_first=True)  # [B, F, C]
        optimizer.zero_grad()
        loss(head(x.transpose(1, 2)), drawn).backward()
        optimizer.step()
        schedule.step()
    head.eval()


def named(phones: Sequence[Said], symbols: Sequence[str], count: int, rate: float) -> Tensor:
    """``[count]`` int64: what sounds at the middle of each of ``count`` parts at ``rate`` Hz: 0 is a pause, i is
    ``symbols[i - 1]``, and ``1 + len(symbols)`` a phone that is not among them."""
    numbers = {symbol: i for i, symbol in enumerate(symbols, 1)}
    labels = torch.zeros(count, dtype=torch.int64)
    for phone in phones:
        first, end = (max(0, round(time * rate)) for time in (phone.start, phone.end))  # middles: i + 1/2
        labels[first:end] = numbers.get(phone.symbol, 1 + len(symbols))
    return labels
