"""Judges of tones, a codec without loss, and a benchmark of both."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from codec.evaluation.judges import recogniser, speaker
from codec.evaluation.judges.recogniser import Recogniser
from codec.evaluation.judges.speaker import SpeakerProbe
from codec.evaluation.report import Report
from codec.flow.evaluation.benchmark import InpaintingBenchmark
from codec.flow.evaluation.panel import Panel
from codec.flow.evaluation.spans import Recording, with_spans
from tests.helpers.tones import RATE, Tones

HOP = 320


@pytest.fixture(scope="session")
def tones() -> Recogniser:
    """Trained on a hundred tones or two."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("CROP", RATE), ("CROPS", 100), ("BATCH", 8), ("WARMUP", 10), ("LEARNING_RATE", 8e-3)):
            patch.setattr(recogniser, name, value)
        return Recogniser(Tones(), width=32, steps=160)


@pytest.fixture(scope="session")
def panel(tones) -> Panel:
    """The recogniser, and a probe that tells the four speakers of the tones apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speaker, "CROPS", 80)
        return Panel(tones, SpeakerProbe([Tones()], dim=2))


class Space(SimpleNamespace):
    """A codec whose latents are the spectra of frames of 20 ms: without loss, and poor to interpolate."""

    frame_rate, sample_rate, dim, fingerprint = RATE / HOP, RATE, HOP + 2, "f" * 32

    def encode(self, wav):
        wav = F.pad(wav[:, 0], (0, -wav.shape[-1] % HOP))
        spectrum = torch.fft.rfft(wav.unflatten(-1, (-1, HOP)))
        return self.normalise(torch.cat([spectrum.real, spectrum.imag], dim=-1).transpose(1, 2))

    def decode(self, x, length):
        real, imaginary = self.denormalise(x).transpose(1, 2).chunk(2, dim=-1)
        return torch.fft.irfft(torch.complex(real, imaginary), HOP).flatten(1)[:, None, :length]

    def normalise(self, x):
        return x / 4

    def denormalise(self, x):
        return x * 4


@pytest.fixture(scope="session")
def recordings() -> list[Recording]:
    return with_spans([Tones(2.5)[30_000 + n] for n in range(8)], RATE)[0]


@pytest.fixture(scope="session")
def benchmark(panel, recordings) -> InpaintingBenchmark:
    return InpaintingBenchmark(Space(), recordings, panel)


@pytest.fixture(scope="session")
def reports(benchmark) -> dict[str, Report]:
    """The bounds, and silence."""
    silence = benchmark.score("silence", lambda masked: [one.known * ~one.span for one in masked])
    return benchmark.bounds() | {"silence": silence}
