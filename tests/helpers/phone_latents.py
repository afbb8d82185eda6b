"""Latents that hold phones with a given clarity."""

from types import SimpleNamespace

import numpy as np
import torch

RATE = 16_000  # Hz, of the audio that they would be of
SYMBOLS = "abdefgik"


def item(seed: int, speaker: str, frame_rate: float, clarity: float, seconds: float = 3.0) -> dict:
    """Phones of 120 to 240 ms; a frame's latents are the share of either half that each phone has, times ``clarity``,
    with noise of variance 0.01."""
    rng = np.random.default_rng(seed)
    phones, time, last = [("_", 0.0)], 0.1, ""
    while time < seconds - 0.1:
        last = str(rng.choice([symbol for symbol in SYMBOLS if symbol != last]))
        phones.append((last, time))
        time += rng.uniform(0.12, 0.24)
    phones.append(("_", time))
    frames = int(seconds * frame_rate)
    fine = np.zeros((len(SYMBOLS), frames, 20))  # 20 instants in a frame
    for (symbol, start), (_, end) in zip(phones, [*phones[1:], ("_", seconds)], strict=True):
        if symbol != "_":
            instants = (np.arange(frames * 20) + 0.5) / 20 / frame_rate
            fine[SYMBOLS.index(symbol)].reshape(-1)[(instants >= start) & (instants < end)] = 1.0
    halves = fine.reshape(len(SYMBOLS), frames, 2, 10).mean(-1)
    latents = clarity * halves.transpose(0, 2, 1).reshape(2 * len(SYMBOLS), frames)
    latents = latents + 0.1 * rng.standard_normal(latents.shape)
    return {
        "latents": torch.from_numpy(latents).float(),
        "phones": phones,
        "speaker": speaker,
        "text": "",
        "file": f"{speaker}-{seed}.flac",
        "samples": int(seconds * RATE),
    }


def corpus(frame_rate: float = 12.5, clarity: float = 1.0, recordings: int = 40) -> SimpleNamespace:
    """What a LatentCorpus gives: two speakers in training, three held out."""
    train = [item(n, f"s{n % 2}", frame_rate, clarity) for n in range(recordings)]
    held = [item(10_000 + n, f"held{n % 3}", frame_rate, clarity) for n in range(6)]
    about = {"dim": 2 * len(SYMBOLS), "kind": "pre", "fingerprint": "f" * 32}
    return SimpleNamespace(train=train, clips=lambda split: held, frame_rate=frame_rate, sample_rate=RATE, **about)
