"""Latents that hold phones with a given clarity."""

from types import SimpleNamespace

import numpy as np
import torch

RATE = 16_000  # Hz, of the audio that they would be of
SYMBOLS = "abdefgik"
DIM = 4 * len(SYMBOLS)


def item(seed: int, speaker: str, frame_rate: float, clarity: float, seconds: float = 3.0) -> dict:
    """Phones of 120 to 240 ms; a frame's latents are ``clarity`` for the phone at each of four instants, 0 for all
    others, with noise of variance 0.01."""
    rng = np.random.default_rng(seed)
    phones, time = [("_", 0.0)], 0.1
    while time < seconds - 0.1:
        phones.append((str(rng.choice([symbol for symbol in SYMBOLS if symbol != phones[-1][0]])), time))
        time += rng.uniform(0.12, 0.24)
    phones.append(("_", time))
    instants = (np.arange(4 * int(seconds * frame_rate)) + 0.5) / (4 * frame_rate)
    numbers = np.searchsorted([start for _, start in phones], instants, side="right") - 1
    present = np.array([[phones[number][0] == symbol for symbol in SYMBOLS] for number in numbers])
    latents = clarity * present.reshape(-1, DIM).T + 0.1 * rng.standard_normal((DIM, len(numbers) // 4))
    return {
        "latents": torch.from_numpy(latents).float(),
        "phones": phones,
        "speaker": speaker,
        "text": "",
        "file": f"{speaker}-{seed}.flac",
        "samples": int(seconds * RATE),
    }


def corpus(frame_rate: float = 12.5, clarity: float = 1.0, recordings: int = 30) -> SimpleNamespace:
    """What a LatentCorpus gives: two speakers in training, three held out."""
    train = [item(n, f"s{n % 2}", frame_rate, clarity) for n in range(recordings)]
    held = [item(10_000 + n, f"held{n % 3}", frame_rate, clarity) for n in range(6)]
    about = {"dim": DIM, "kind": "pre", "fingerprint": "f" * 32}
    return SimpleNamespace(train=train, clips=lambda split: held, frame_rate=frame_rate, sample_rate=RATE, **about)
