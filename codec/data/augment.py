"""Augmentation of training crops: gain, polarity and noise."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.data.base import Stream


class Augment:
    """Random gain, polarity and noise: wav [1, T] -> wav [1, T] in [-1, 1], a function of the wav and the rng.

    `gain` is a range in dB, lowered where it would clip; `flip` the probability of inverted polarity; `noise` a range
    of signal-to-noise ratios in dB, or None; `colour` of the noise is "white" or "pink" (-3 dB per octave).
    """

    def __init__(
        self, gain: Sequence[float] = (-12, 6), flip: float = 0.5, noise: Sequence[float] | None = None, colour="white"
    ):
        if colour not in ("white", "pink"):
            raise ValueError(f"noise colour {colour!r} is unknown; valid: white, pink.")
        self.gain, self.flip, self.noise, self.colour = gain, flip, noise, colour

    def __call__(self, wav: Tensor, rng: np.random.Generator) -> Tensor:
        factor = 10 ** (rng.uniform(*self.gain) / 20)
        if rng.random() < self.flip:
            factor = -factor
        if self.noise is not None:
            snr = rng.uniform(*self.noise)
            noise = _noise(wav.shape[-1], self.colour, rng)
            wav = wav + noise * (wav.pow(2).mean().sqrt() * 10 ** (-snr / 20))
        return wav * (factor / max(1.0, abs(factor) * float(wav.abs().max())))


def _noise(samples: int, colour: str, rng: np.random.Generator) -> Tensor:
    """Noise [samples] of unit power."""
    noise = rng.standard_normal(samples)
    if colour == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), samples)
        noise /= np.sqrt(np.mean(noise**2)) + 1e-12
    return torch.from_numpy(noise.astype(np.float32))


class AugmentedCrops(Dataset):
    """Map-style crops with augmentation seeded by the draw number: still a function of (seed, n) alone."""

    def __init__(self, crops: Dataset, augment: Augment, seed: int):
        self.crops, self.augment, self.seed = crops, augment, seed

    def __getitem__(self, n: int) -> dict:
        item = self.crops[n]
        return item | {"wav": self.augment(item["wav"], np.random.default_rng((self.seed, 2, n)))}


class AugmentedStream(Stream):
    """A stream with augmentation of each item."""

    def __init__(self, crops: Stream, augment: Augment, seed: int):
        self.crops, self.augment, self.seed = crops, augment, seed

    def items(self) -> Iterator[dict]:
        self.crops.set_reader(self.rank, self.world, self.start)
        rng = np.random.default_rng((self.seed, 2, self.start, self.part()[0]))
        for item in self.crops:
            yield item | {"wav": self.augment(item["wav"], rng)}
