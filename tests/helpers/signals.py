"""Signals that metrics can score, made from numbers."""

from functools import cache

import numpy as np

RATE = 16_000


@cache
def speech(seconds: float = 3.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """[T] float32, peak 0.5: a harmonic complex with vibrato and moving formants, syllables at 4 Hz, and
    pauses."""
    generator = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = generator.uniform(100, 220) * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = [500 + 200 * np.sin(2 * np.pi * 2.1 * t), 1600 + 600 * np.sin(2 * np.pi * 1.3 * t)]
    wav = np.zeros_like(t)
    for k in range(1, 25):
        gain = 0.02 + sum(np.exp(-(((k * pitch - formant) / 200) ** 2)) for formant in formants)
        wav += gain * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0, 1) ** 0.5
    phrases = np.sin(2 * np.pi * 0.6 * t + 0.3) > -0.6
    wav = (wav + 0.02 * generator.standard_normal(len(t))) * syllables * phrases
    wav = (0.5 * wav / np.abs(wav).max()).astype(np.float32)
    wav.setflags(write=False)  # many tests share it
    return wav


def noisy(wav: np.ndarray, snr: float, seed: int = 1) -> np.ndarray:
    """wav plus white noise at `snr` dB."""
    noise = np.random.default_rng(seed).standard_normal(len(wav))
    return wav + noise * np.sqrt(np.mean(wav**2) / np.mean(noise**2)) * 10 ** (-snr / 20)


def speechlike(seconds: float, rate: int, seed: int) -> np.ndarray:
    """Harmonics of a gliding pitch under a syllable envelope, [T]: enough like speech for PESQ and STOI to score it."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wav = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * t + rng.uniform(0, 6)), 0, None) ** 0.5
    wav = wav * syllables + 0.002 * rng.standard_normal(len(t))
    return (0.3 * wav / np.abs(wav).max()).astype(np.float32)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    """[T] float64, white: every piece differs from every other."""
    return 0.2 * np.random.default_rng(seed).standard_normal(samples).clip(-4, 4)
