"""A corpus of latents in memory, with the contract of codec/latents/latent_corpus.py."""

import numpy as np
import torch

from tests.helpers.flow_parts import HOP, RATE, C


class Clips:
    """Recordings of so many frames, with a phone every 0.05 s and a character for each; latents tell recording (channel
    0), frame (channel 1), and are random (channel 2)."""

    def __init__(self, lengths: list[int], first: int = 0):
        self.lengths, self.first = np.array(lengths), first

    def __len__(self):
        return len(self.lengths)

    def about(self, n):
        phones = [("abc"[(n + k) % 3], 0.05 * k) for k in range(max(1, int(self.lengths[n]) // 5))]
        return {"text": "".join(symbol for symbol, _ in phones), "phones": phones, "speaker": "s", "file": f"f{n}"}

    def item(self, n, start_frame=0, frames=None):
        end = min(int(self.lengths[n]), start_frame + (frames or 10**9))
        at = torch.arange(start_frame, end).float()
        noise = torch.randn(int(self.lengths[n]), generator=torch.Generator().manual_seed(self.first + n))
        latents = torch.stack([torch.full_like(at, self.first + n), at / 100, noise[start_frame:end]])
        about = self.about(n)
        start = start_frame * HOP / RATE
        phones = [(symbol, time - start) for symbol, time in about["phones"] if start <= time < end * HOP / RATE]
        return about | {"latents": latents, "phones": phones, "samples": len(at) * HOP}


class Corpus:
    def __init__(self, lengths=(40, 60, 100, 33), held=(50, 41)):
        self.train, self.held = Clips(list(lengths)), Clips(list(held), first=100)
        self.mean, self.std = torch.zeros(C), torch.ones(C)
        self.frame_rate, self.sample_rate, self.hop_length, self.dim = RATE / HOP, RATE, HOP, C
        self.fingerprint, self.kind = "f" * 32, "pre"

    def clips(self, split):
        return self.train if split == "train" else self.held
