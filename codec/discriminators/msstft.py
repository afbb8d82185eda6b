"""Multi-scale complex STFT discriminator of EnCodec (arXiv 2210.13438, section 3.4).

After audiocraft @ 896ec7c, with LeakyReLU 0.3 as in its EnCodec configuration (its class and the encodec package
default to 0.2). As there, the first convolution has no weight norm: 472,330 parameters at five scales.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.discriminators.base import Maps, feature_maps
from codec.layers.spectrogram import Spectrogram, real_and_imaginary


class MultiScaleSTFT(nn.Module):
    """Multi-scale STFT discriminator: wav ``[B, 1, T]`` -> 6 maps ``[B, C, F, bins]`` per window.

    Windows are in samples, none longer than T, hop = window / 4.
    """

    def __init__(self, windows: Sequence[int] = (1024, 2048, 512, 256, 128), width: int = 32):
        super().__init__()
        self.scales = nn.ModuleList(STFTDiscriminator(window, width) for window in windows)

    def forward(self, wav: Tensor) -> Maps:
        return [scale(wav) for scale in self.scales]


class STFTDiscriminator(nn.Module):
    """One window length; dilations in time, three strides of 2 in frequency."""

    def __init__(self, window: int, width: int):
        super().__init__()
        energy = torch.hann_window(window).square().sum().item()
        self.spectrogram = Spectrogram(window, window // 4, scale=energy**-0.5)  # "normalized" as in torchaudio
        self.layers = nn.ModuleList([nn.Conv2d(2, width, (3, 9), padding=(1, 4))])
        for dilation in (1, 2, 4):
            conv = nn.Conv2d(width, width, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1))
            self.layers.append(weight_norm(conv))
        self.layers.append(weight_norm(nn.Conv2d(width, width, 3, padding=1)))
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> list[Tensor]:
        return feature_maps(real_and_imaginary(self.spectrogram(wav)), self.layers, 0.3, self.last)
