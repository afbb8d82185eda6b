"""The base class of teachers, frozen networks whose features are the targets of distillation."""

from typing import Self

import torch
import torchaudio
from torch import Tensor, nn

from codec.layers.precision import fp32


class Teacher(nn.Module):
    """A frozen network: waveforms ``[B, 1, T]`` -> features ``[B, F', C]`` float32, always in eval mode.

    The features of an example do not depend on the rest of the batch.

    Args:
        dim: channels C of the features.
        frame_rate: of the features, in Hz.
        identity: architecture, layer and origin of the weights, for cache keys; equal only for equal features.
        sample_rate: of the network's input, in Hz.
    """

    def __init__(self, network: nn.Module, dim: int, frame_rate: float, identity: str, sample_rate: int = 16_000):
        super().__init__()
        self.network = network.requires_grad_(False)
        self.dim, self.frame_rate, self.identity, self.sample_rate = dim, frame_rate, identity, sample_rate
        self.eval()

    @torch.no_grad()
    @fp32
    def forward(self, wav: Tensor, sample_rate: int) -> Tensor:
        """wav ``[B, 1, T]`` at ``sample_rate`` Hz -> ``[B, F', C]``."""
        return self.features(torchaudio.functional.resample(wav.squeeze(1), sample_rate, self.sample_rate))

    def features(self, wav: Tensor) -> Tensor:
        """wav ``[B, T]`` float32 at the network's sample rate -> ``[B, F', C]`` float32."""
        return self.network(wav)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)  # dropout in a target would be noise
