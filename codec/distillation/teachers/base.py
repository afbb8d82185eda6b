"""The contract of a teacher: a frozen network that gives the features for distillation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
import torchaudio
from torch import Tensor, nn

from codec.layers.precision import fp32


class Teacher(nn.Module):
    """Waveforms ``[B, 1, T]`` -> features ``[B, F', C]`` float32, without gradients and always in eval mode.

    The features of an example do not depend on the rest of the batch.

    Args:
        network: computes the features; it is frozen here.
        dim: channels C of the features.
        frame_rate: of the features, in Hz.
        identity: a short name of the architecture, the layer and the origin of the weights, for the keys of caches:
            teachers with one identity have equal features.
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


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the CPU's random numbers inside the block, and restores their state after it.

    Networks are built on the CPU, so that a seed means the same weights on every machine.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reset the generators of GPUs
        yield
