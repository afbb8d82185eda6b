"""A phone recogniser to judge decoded speech by: it learns from recordings, and never hears a codec nor sees a latent.

What sets it apart from the phone teacher (codec/distillation/teachers/phones.py), which a codec may have been drawn
towards: it has
CTC over sequences as its loss, not the names of frames; 64 mel bands of 25 ms windows with each band's mean and spread
taken out, not 80 of 64 ms; dilated convolutions with batch norm that see 0.2 s, not ConvNeXt blocks that see 0.36 s;
another seed, and other voices and sentences where its corpus has another seed. What they share: eSpeak NG, its ten
languages and its few hundred words. A teacher's arm could gain from that, since its teacher, too, knows how eSpeak
says these words: judge such an arm by the metrics without a network as well.

It sees 0.2 s to either side, so as not to guess a span from what surrounds it; words that it knows from training it may
still complete from half a word.
"""

import json
import logging
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.distillation.teachers.base import seeded
from codec.evaluation.judges import mel
from codec.evaluation.judges import phone_edits as phones
from codec.evaluation.judges.ctc import ctc_loss, transcript
from codec.evaluation.judges.mel import BANDS, FLOOR, MEL_RATE, SAMPLE_RATE, LogMel, at_16k
from codec.evaluation.judges.phone_edits import Edits, Heard, Said, edits_within, said
from codec.evaluation.judges.voices import strangers
from codec.utils.cache import Stored, cache_dir, cache_key, cached_tensors, corpus_fingerprint
from codec.utils.errors import InputError

log = logging.getLogger(__name__)

VERSION = 2  # raise it when anything here changes what is learnt
FRAME_RATE = MEL_RATE / 2  # Hz, of what comes out
CROP = 4 * SAMPLE_RATE  # samples of a training example
CROPS = 2400  # training examples, at most: 2.7 hours
STEPS = 2000
BATCH = 16
LEARNING_RATE = 2e-3
WARMUP = 100  # steps
SHIFT = 3  # mel bands
HISS, HISS_SPREAD = 5.0, 0.3  # of its power over the floor, natural log: at most, and from cell to cell
CUT = 0.02  # seconds of a phone at the edge of a crop that are too little to be heard
WIDTH = 192
HIDDEN = 64
DILATIONS = (1, 1, 2, 2, 3)


class Block(nn.Module):
    """``[B, C, F] -> [B, C, F]``: what a dilated convolution of width 3 hears, added to the input."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.dropout(F.relu(self.norm(self.conv(x))), 0.1, self.training)


class PhoneNetwork(nn.Module):
    """wav ``[B, T]`` at 16 kHz -> ``(hidden [B, F, 64], logits [B, F, 1 + phones])`` at 50 Hz, label 0 being blank."""

    def __init__(self, count: int, width: int = WIDTH):
        super().__init__()
        self.mel = LogMel()
        self.enter = nn.Sequential(nn.Conv1d(BANDS, width, 5, stride=2, padding=2), nn.BatchNorm1d(width), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(width, dilation) for dilation in DILATIONS))
        self.narrow = nn.Sequential(nn.Conv1d(width, HIDDEN, 1), nn.BatchNorm1d(HIDDEN))
        self.head = nn.Linear(HIDDEN, 1 + count)

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode(self.mel(wav))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same of log-mel energies ``[B, 64, 2 F]``."""
        x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).clamp(min=0.1)  # a band may be silent
        hidden = self.narrow(self.blocks(self.enter(x))).transpose(1, 2)
        return hidden, self.head(F.relu(hidden))


class Recogniser:
    """Decoded audio -> the phones in it and when they were said.

    Trained when it is first asked for and kept in the user's cache folder; a second process waits for the first.

    Args:
        corpus: map-style at 16 kHz, whose items have ``phones`` (codec/data/base.py): the espeak corpus, of another
            seed than the one under study, or a folder whose manifest has that column.
        apart: speakers that are to be judged; it does not learn from them, nor from their vocal tracts.
        width: channels.
        steps: of training, with 16 crops of 4 s each.

    Attributes:
        error_rate: phone error rate on the held-out recordings of its corpus, edits over phones.
        identity: a short name for these weights.

    Raises:
        InputError: if the corpus does not fit.
        ValueError: if the cache cannot be written; says what to do.
    """

    def __init__(
        self, corpus: Any, apart: Collection[str] = (), width: int = WIDTH, steps: int = STEPS, seed: int = 1000
    ):
        crops = list(strangers(corpus, CROP, 8, seed, apart))
        parts = VERSION, mel.VERSION, phones.VERSION, corpus_fingerprint(crops), sorted(apart), width, steps, seed
        self.identity = f"recogniser-{cache_key(*parts)}"
        path = cache_dir() / "judges" / f"{self.identity}.safetensors"
        with seeded(seed):
            weights, about = cached_tensors(path, lambda: learn(corpus, apart, width, steps, seed))
            self.symbols: list[str] = json.loads(about["symbols"])
            self.network = PhoneNetwork(len(self.symbols), width)
        self.network.load_state_dict(weights)
        self.network.eval().requires_grad_(False)
        self.error_rate = float(about["error_rate"])
        log.info("recogniser: phone error rate of %.1f %% on held-out voices", 100 * self.error_rate)

    def heard(self, wav, sample_rate: int) -> list[Heard]:
        """wav ``[T]`` at ``sample_rate`` Hz -> the phones of the whole recording.

        Raises:
            MetricError: if the audio is empty or not finite.
        """
        return transcript(self.network(at_16k(wav, sample_rate))[1][0], self.symbols, FRAME_RATE)

    def edits(self, wav, sample_rate: int, truth: Sequence[tuple[str, float]], span: tuple[float, float]) -> Edits:
        """Of wav ``[T]``, heard as a whole: the edits in ``span`` (s), see
        :func:`codec.evaluation.judges.phone_edits.edits_within`."""
        return edits_within(said(truth, len(wav) / sample_rate), self.heard(wav, sample_rate), span)

    def features(self, wav, sample_rate: int, span: tuple[float, float]) -> np.ndarray:
        """wav ``[T]`` -> the hidden layer ``[n, 64]`` of the frames (50 per second) whose middle lies in ``span`` (s),
        of the whole recording."""
        hidden = self.network(at_16k(wav, sample_rate))[0][0].numpy()
        middles = (np.arange(len(hidden)) + 0.5) / FRAME_RATE
        return hidden[(middles >= span[0]) & (middles < span[1])]


def learn(corpus: Any, apart: Collection[str], width: int, steps: int, seed: int) -> Stored:
    """Train a network -> its weights, and "symbols" and "error_rate" as text."""
    log.info("training the recogniser, %d steps", steps)
    drawn = list(strangers(corpus, CROP, min(CROPS, BATCH * steps), seed, apart))
    truth = [[phone.symbol for phone in audible(said(item["phones"], CROP / SAMPLE_RATE))] for item in drawn]
    symbols, clips = sorted({symbol for symbols in truth for symbol in symbols}), corpus.clips("val")
    if not symbols or not any(item["phones"] for item in clips):
        raise InputError(
            "the recogniser needs a corpus with phones and with held-out clips to be measured on: use the espeak "
            "corpus, with holdout above 0"
        )
    numbers = {symbol: i for i, symbol in enumerate(symbols, 1)}
    targets = [torch.tensor([numbers[symbol] for symbol in spelled]) for spelled in truth]
    network = PhoneNetwork(len(symbols), width)
    with torch.no_grad():
        mels = torch.cat([network.mel(item["wav"]) for item in drawn])  # [N, 64, F]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    for step in range(steps):
        rate = LEARNING_RATE * min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = rate
        batch = torch.randint(len(mels), (BATCH,)).tolist()
        logits = network.encode(disguised(mels[batch]))[1]
        loss = ctc_loss(logits, torch.full((len(batch),), logits.shape[1]), [targets[i] for i in batch])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            log.info("step %d of %d: loss %.2f per phone", step + 1, steps, loss.item())
    return network.state_dict(), {
        "symbols": json.dumps(symbols),
        "error_rate": str(error_rate(network, symbols, clips)),
    }


@torch.no_grad()
def error_rate(network: PhoneNetwork, symbols: Sequence[str], clips: Sequence[dict]) -> float:
    """Edits over phones, of all clips together."""
    network.eval()
    edits = count = 0
    for item in clips:
        truth = said(item["phones"], item["wav"].shape[-1] / SAMPLE_RATE)
        found = edits_within(truth, transcript(network(item["wav"])[1][0], symbols, FRAME_RATE), (0.0, math.inf))
        edits, count = edits + found.edits, count + found.phones
    return edits / count


def audible(phones: Sequence[Said]) -> Iterator[Said]:
    """Without a phone at either edge of a crop of which next to nothing is left."""
    for phone in phones:
        cut = phone.start <= 0 or phone.end >= CROP / SAMPLE_RATE
        if not cut or phone.end - phone.start > CUT:
            yield phone


def disguised(x: Tensor) -> Tensor:
    """Log-mel energies ``[B, 64, F]`` as if of other voices and in hiss, with gaps: each example moved by up to SHIFT
    bands, a floor of noise put in at a random level, and two stretches of bands and of frames blotted out."""
    batch, bands, frames = x.shape
    by = torch.randint(-SHIFT, SHIFT + 1, (batch, 1, 1))
    x = x.gather(1, (torch.arange(bands)[None, :, None] + by).clamp(0, bands - 1).expand_as(x))
    x = torch.logaddexp(x, math.log(FLOOR) + HISS * torch.rand(batch, 1, 1) + HISS_SPREAD * torch.randn(x.shape))
    for axis, size, widest in ((1, bands, 5), (2, frames, 7)):
        for _ in range(2):
            first, width = torch.randint(size - widest, (batch, 1)), torch.randint(widest + 1, (batch, 1))
            number = torch.arange(size)
            gap = (number >= first) & (number < first + width)  # [B, size]
            x = torch.where(gap.unsqueeze(3 - axis), x.mean((1, 2), keepdim=True), x)
    return x
