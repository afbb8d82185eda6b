"""Multi-scale complex STFT discriminator of EnCodec (arXiv 2210.13438, section 3.4).

Structure and numbers follow audiocraft @ 896ec7c (LeakyReLU 0.3 as in its EnCodec configuration; its class
and the older encodec package default to 0.2). As there, the first convolution has no weight norm: 472,330
parameters at five scales.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.discriminators.base import Maps, activations
from codec.discriminators.spectrum import Spectrum, real_and_imaginary


class MultiScaleSTFT(nn.Module):
    """windows in samples, hop = window / 4; width: channels of every hidden layer."""

    def __init__(self, windows: Sequence[int] = (1024, 2048, 512, 256, 128), width: int = 32):
        super().__init__()
        self.scales = nn.ModuleList(Scale(window, width) for window in windows)

    def forward(self, wav: Tensor) -> Maps:
        """wav `[B, 1, T]` -> 6 maps `[B, C, F, bins]` per window. Raises ValueError where T is shorter."""
        return [scale(wav) for scale in self.scales]


class Scale(nn.Module):
    """One window length; time is dilated and never strided, frequency is halved three times."""

    def __init__(self, window: int, width: int):
        super().__init__()
        # "normalized" in torchaudio's sense: by the window's energy.
        energy = torch.hann_window(window).square().sum().item()
        self.spectrum = Spectrum(window, window // 4, scale=energy**-0.5)
        self.layers = nn.ModuleList([nn.Conv2d(2, width, (3, 9), padding=(1, 4))])
        for dilation in (1, 2, 4):
            conv = nn.Conv2d(width, width, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1))
            self.layers.append(weight_norm(conv))
        self.layers.append(weight_norm(nn.Conv2d(width, width, 3, padding=1)))
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, wav: Tensor) -> list[Tensor]:
        maps = activations(real_and_imaginary(self.spectrum(wav)), self.layers, slope=0.3)
        return [*maps, self.last(maps[-1])]
