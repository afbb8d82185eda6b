"""Multi-band multi-resolution complex spectrogram discriminator of DAC (arXiv 2306.06546).

With the multi-period discriminator it has DAC's 42,519,760 parameters. DAC normalises the input of both:
``DiscriminatorSet(normalize=True)``.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.discriminators.base import Maps, feature_maps
from codec.layers.spectrogram import Spectrogram, real_and_imaginary


class MultiResolution(nn.Module):
    """Multi-resolution discriminator: wav ``[B, 1, T]`` -> per window the maps of each band, then the logits.

    A band has 5 maps ``[B, width, F, bins]``; logits are ``[B, 1, F, bins]``. Windows are in samples, hop = window / 4;
    T must be at least about 3/8 of the longest one. Band edges are from 0 (DC) to 1 (half the sample rate).
    """

    def __init__(
        self,
        windows: Sequence[int] = (2048, 1024, 512),
        edges: Sequence[float] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0),
        width: int = 32,
    ):
        super().__init__()
        self.resolutions = nn.ModuleList(BandDiscriminator(window, edges, width) for window in windows)

    def forward(self, wav: Tensor) -> Maps:
        return [resolution(wav) for resolution in self.resolutions]


class BandDiscriminator(nn.Module):
    """One window length: convolutions of their own for each band, and one last convolution over all bands."""

    def __init__(self, window: int, edges: Sequence[float], width: int):
        super().__init__()
        hop, bins = window // 4, window // 2 + 1
        self.spectrogram = Spectrogram(window, hop, pad=(window - hop) // 2, align=True)
        self.slices = [slice(int(low * bins), int(high * bins)) for low, high in itertools.pairwise(edges)]
        self.bands = nn.ModuleList(_band_layers(width) for _ in self.slices)
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> list[Tensor]:
        spectrum = real_and_imaginary(self.spectrogram(wav))  # [B, 2, F, bins]
        bands = [
            feature_maps(spectrum[..., part], layers, 0.1) for part, layers in zip(self.slices, self.bands, strict=True)
        ]
        logits = self.last(torch.cat([maps[-1] for maps in bands], dim=-1))
        return [*(one for maps in bands for one in maps), logits]


def _band_layers(width: int) -> nn.ModuleList:
    layers = [nn.Conv2d(2, width, (3, 9), padding=(1, 4))]
    layers += [nn.Conv2d(width, width, (3, 9), (1, 2), padding=(1, 4)) for _ in range(3)]
    layers += [nn.Conv2d(width, width, 3, padding=1)]
    return nn.ModuleList(weight_norm(layer) for layer in layers)
