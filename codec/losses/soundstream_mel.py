"""SoundStream's multi-scale mel loss (arXiv 2107.03312, section III.E; after arXiv 2008.01160).

Per scale s, with the mel spectrogram S of 64 bands: |S - S'|_1 + sqrt(s / 2) |ln S - ln S'|_2, norms over bands. Unlike
the paper, the loss is a mean over frames, not a sum. The paper states neither whether S is magnitude or power nor its
floor: here magnitude, normalised by the window, and 1e-5.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.layers.spectrogram import MelSpectrogram


class SoundStreamMel(nn.Module):
    """SoundStream's multi-scale mel loss: (target, estimate) ``[B, 1, T]`` -> scalar, summed over scales.

    Windows are in samples, hop = window / 4.
    """

    def __init__(
        self,
        sample_rate: int,
        windows: Sequence[int] = (64, 128, 256, 512, 1024, 2048),
        mels: int = 64,
        floor: float = 1e-5,
    ):
        super().__init__()
        self.scales = nn.ModuleList(MelSpectrogram(sample_rate, size, mels, normalized=True) for size in windows)
        self.alphas = [math.sqrt(size / 2) for size in windows]
        self.floor = floor

    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        loss = 0.0
        for mel, alpha in zip(self.scales, self.alphas, strict=True):
            real, fake = mel(target), mel(estimate)  # [B, M, F]
            logs = torch.log(fake + self.floor) - torch.log(real + self.floor)
            per_frame = (fake - real).abs().sum(1) + alpha * torch.linalg.vector_norm(logs, dim=1)  # [B, F]
            loss = loss + per_frame.mean()
        return loss
