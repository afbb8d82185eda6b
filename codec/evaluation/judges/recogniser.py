"""A phone recogniser that judges decoded speech, trained on recordings, never on a codec's output or latents.

It shares no network with the phone teacher (codec/distillation/teachers/phones.py), with which a codec under test may
be trained: loss (CTC), input, layers, seed, voices and sentences differ. Both learn from eSpeak NG, ten languages and a
few hundred words, from which such a codec could gain: use metrics without a network, too. A context of only 0.2 s to
either side keeps it from guessing a span from its surroundings.
"""

import json
import logging
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.evaluation.judges import mel, phone_edits
from codec.evaluation.judges.crops import crops_without
from codec.evaluation.judges.mel import BANDS, FLOOR, MEL_RATE, SAMPLE_RATE, LogMel, at_16k, frames_within
from codec.evaluation.judges.phone_edits import Edits, PhoneToken, edits_within, phone_segments, transcript
from codec.layers.ctc import ctc_loss
from codec.utils.cache import Stored, cache_dir, cache_key, cached_tensors, corpus_fingerprint
from codec.utils.errors import InputError
from codec.utils.fitting import fit, seeded, shift_bands

log = logging.getLogger(__name__)

VERSION = 2  # raise it when anything here changes the weights
FRAME_RATE = MEL_RATE / 2  # Hz, of the output
CROP = 4 * SAMPLE_RATE  # samples of a training example
CROPS = 2400  # training examples, at most: 2.7 hours
STEPS = 2000
BATCH = 16
LEARNING_RATE = 2e-3
WARMUP = 100  # steps
SHIFT = 3  # mel bands
NOISE, NOISE_SPREAD = 5.0, 0.3  # natural log of its power over the floor: the most, and its spread over cells
CUT = 0.02  # seconds: what the edge of a crop leaves of a phone is no label if it is shorter
WIDTH = 192
HIDDEN = 64
DILATIONS = (1, 1, 2, 2, 3)


class Block(nn.Module):
    """Residual dilated convolution of width 3, ``[B, C, F] -> [B, C, F]``."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, dilation=dilation, padding=dilation)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.dropout(F.relu(self.norm(self.conv(x))), 0.1, self.training)


class PhoneNetwork(nn.Module):
    """CTC network: 16 kHz wav ``[B, T]`` -> hidden ``[B, F, 64]``, logits ``[B, F, 1 + phones]`` at 50 Hz; blank: 0."""

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
        """Hidden layer and logits from log-mel energies ``[B, 64, 2 F]``."""
        x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).clamp(min=0.1)  # a band may be silent
        hidden = self.narrow(self.blocks(self.enter(x))).transpose(1, 2)
        return hidden, self.head(F.relu(hidden))


class Recogniser:
    """Phones of decoded audio and their times, by a network trained on first use and cached.

    Args:
        corpus: map-style at 16 kHz with ``phones`` (codec/data/base.py): the espeak corpus, of another seed than the
            one under study, or a folder whose manifest has that column.
        exclude: speakers to be judged; neither they nor their vocal tracts are trained on.
        steps: of training, with 16 crops of 4 s each.

    ``error_rate`` is edits per phone on held-out recordings of the corpus, ``identity`` a name of the weights. Raises
    InputError if the corpus does not fit, ValueError if the cache cannot be written.
    """

    def __init__(
        self, corpus: Any, exclude: Collection[str] = (), width: int = WIDTH, steps: int = STEPS, seed: int = 1000
    ):
        crops = list(crops_without(exclude, corpus, CROP, 8, seed))
        parts = VERSION, mel.VERSION, phone_edits.VERSION, corpus_fingerprint(crops), sorted(exclude)
        self.identity = f"recogniser-{cache_key(*parts, width, steps, seed)}"
        path = cache_dir() / "judges" / f"{self.identity}.safetensors"
        with seeded(seed):
            weights, about = cached_tensors(path, lambda: train(corpus, exclude, width, steps, seed))
            self.symbols: list[str] = json.loads(about["symbols"])
            self.network = PhoneNetwork(len(self.symbols), width)
        self.network.load_state_dict(weights)
        self.network.eval().requires_grad_(False)
        self.error_rate = float(about["error_rate"])
        log.info("recogniser: phone error rate of %.1f %% on held-out voices", 100 * self.error_rate)

    def transcribe(self, wav, sample_rate: int) -> list[PhoneToken]:
        """Phones of a whole recording, wav ``[T]`` at ``sample_rate`` Hz; MetricError if it is empty or not finite."""
        return transcript(self.network(at_16k(wav, sample_rate))[1][0], self.symbols, FRAME_RATE)

    def edits(self, wav, sample_rate: int, phones: Sequence[tuple[str, float]], span: tuple[float, float]) -> Edits:
        """Edits in ``span`` (s) of the transcript of the whole wav ``[T]`` (:func:`phone_edits.edits_within`)."""
        return edits_within(phone_segments(phones, len(wav) / sample_rate), self.transcribe(wav, sample_rate), span)

    def features(self, wav, sample_rate: int, span: tuple[float, float]) -> np.ndarray:
        """Hidden layer ``[n, 64]`` of wav ``[T]`` at the frames (50 per second) in ``span`` (s)."""
        hidden = self.network(at_16k(wav, sample_rate))[0][0].numpy()
        return hidden[frames_within(span, len(hidden), FRAME_RATE)]


def train(corpus: Any, exclude: Collection[str], width: int, steps: int, seed: int) -> Stored:
    """Train a network -> its weights, and "symbols" and "error_rate" as text."""
    log.info("training the recogniser, %d steps", steps)
    items = list(crops_without(exclude, corpus, CROP, min(CROPS, BATCH * steps), seed))
    phones, clips = [_whole_phones(item) for item in items], corpus.clips("val")
    symbols = sorted({symbol for clip in phones for symbol in clip})
    if not symbols or not any(item["phones"] for item in clips):
        raise InputError(
            "the recogniser needs a corpus with phones and with held-out clips to be measured on: use the espeak "
            "corpus, with holdout above 0"
        )
    numbers = {symbol: i for i, symbol in enumerate(symbols, 1)}
    targets = [torch.tensor([numbers[symbol] for symbol in clip], dtype=torch.int64) for clip in phones]
    network = PhoneNetwork(len(symbols), width)
    with torch.no_grad():
        mels = torch.cat([network.mel(item["wav"]) for item in items])  # [N, 64, F]

    def loss() -> Tensor:
        batch = torch.randint(len(mels), (BATCH,)).tolist()
        logits = network.encode(augment(mels[batch]))[1]
        return ctc_loss(logits, torch.full((BATCH,), logits.shape[1]), [targets[i] for i in batch]).mean()

    fit(loss, network.parameters(), steps, LEARNING_RATE, WARMUP, weight_decay=0.02, max_norm=1.0)
    return network.state_dict(), {
        "symbols": json.dumps(symbols),
        "error_rate": str(error_rate(network, symbols, clips)),
    }


@torch.no_grad()
def error_rate(network: PhoneNetwork, symbols: Sequence[str], clips: Sequence[dict]) -> float:
    """Phone error rate of all clips together."""
    network.eval()
    references = [phone_segments(item["phones"], item["wav"].shape[-1] / SAMPLE_RATE) for item in clips]
    hypotheses = [transcript(network(item["wav"])[1][0], symbols, FRAME_RATE) for item in clips]
    return phone_edits.error_rate(references, hypotheses)


def _whole_phones(item: dict) -> list[str]:
    """Phone symbols of a crop, without those of which an edge leaves 20 ms or less."""
    seconds = CROP / SAMPLE_RATE
    return [
        phone.symbol
        for phone in phone_segments(item["phones"], seconds)
        if (phone.start > 0 and phone.end < seconds) or phone.end - phone.start > CUT
    ]


def augment(x: Tensor) -> Tensor:
    """Augment log-mel energies ``[B, 64, F]``: band shift, noise of random level, SpecAugment (arXiv 1904.08779)."""
    batch, bands, frames = x.shape
    x = shift_bands(x, SHIFT)
    x = torch.logaddexp(x, math.log(FLOOR) + NOISE * torch.rand(batch, 1, 1) + NOISE_SPREAD * torch.randn(x.shape))
    for axis, size, widest in ((1, bands, 5), (2, frames, 7)):
        for _ in range(2):
            first, width = torch.randint(size - widest, (batch, 1)), torch.randint(widest + 1, (batch, 1))
            number = torch.arange(size)
            gap = (number >= first) & (number < first + width)  # [B, size]
            x = torch.where(gap.unsqueeze(3 - axis), x.mean((1, 2), keepdim=True), x)
    return x
