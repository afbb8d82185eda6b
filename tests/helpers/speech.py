"""Clips for the tests of reports, and a system with small errors."""

import math

import torch

from codec.evaluation.baselines.base import System

RATE = 16_000


def clip(seed: int, seconds: float = 1.0, rate: int = RATE) -> dict:
    """A dataset item: harmonics with syllables at 4 Hz."""
    t = torch.arange(int(seconds * rate)) / rate
    tone = sum(torch.sin(2 * math.pi * (110 + 20 * seed) * k * t) / k for k in range(1, 12))
    wav = 0.2 * tone * (0.55 + 0.45 * torch.sin(2 * math.pi * 4 * t))
    return {"wav": wav[None], "speaker": f"s{seed % 2}", "file": f"/data/corpus/s{seed % 2}/take {seed}.wav"}


class Rounding(System):
    """Quantizes samples to ``bits``."""

    def __init__(self, bits: int = 6, sample_rate: int | None = None):
        self.bits, self.sample_rate = bits, sample_rate

    def reconstruct(self, wav, sample_rate):
        assert wav.ndim == 3
        assert self.sample_rate in (None, sample_rate)
        steps = 2 ** (self.bits - 1)
        return (wav * steps).round() / steps

    def facts(self):
        return {"kbps": self.bits * 16.0}
