"""A language of tones that networks learn in seconds."""

import numpy as np
import torch

RATE = 16_000  # Hz
PITCHES = {"a": 300.0, "e": 900.0, "i": 2200.0, "s": 5000.0}  # Hz


class Tones:
    """A corpus of items of ``seconds``: four tones, 80 to 240 ms long, at any level, with exact times.

    The speakers, s0 to s3, have pitches of their own.
    """

    sample_rate = RATE

    def __init__(self, seconds: float = 2.0):
        self.seconds = seconds

    def __getitem__(self, n: int) -> dict:
        rng = np.random.default_rng(n)
        pitch, phones, samples, speaker = np.zeros(int(self.seconds * RATE)), [], 0, n % 4
        while samples < len(pitch):
            symbol = str(rng.choice(sorted(set(PITCHES) - {phones[-1][0] if phones else ""})))
            phones.append((symbol, samples / RATE))
            pitch[samples:] = PITCHES[symbol]
            samples += int(rng.uniform(0.08, 0.24) * RATE)
        wav = rng.uniform(0.01, 0.5) * np.sin(2 * np.pi * np.cumsum(pitch * (1 + 0.04 * speaker)) / RATE)
        wav = torch.from_numpy(wav + 1e-3 * rng.standard_normal(len(wav))).float()[None]
        return {"wav": wav, "phones": phones, "speaker": f"s{speaker}", "text": "", "file": f"{n}.wav"}

    def crops(self, samples: int, seed: int) -> "Tones":
        return Tones(samples / RATE)

    def clips(self, split: str) -> list[dict]:
        return [self[n] for n in range(10_000, 10_008)]
