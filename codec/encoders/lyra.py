"""The encoder of Lyra V2, SoundStream as Google released it (github.com/google/lyra, Apache-2.0).

Convolution 1 -> C of kernel 4S and stride S; for each further stride S: separable residual units, LeakyReLU,
convolution of kernel 2S that doubles the channels; LeakyReLU, convolution to the D latent channels. Most are grouped.
"""

import math
from collections.abc import Sequence

from torch import nn

from codec.encoders.base import SequentialEncoder
from codec.layers.conv import CausalConv1d
from codec.layers.separable import SeparableUnit, leaky


class LyraEncoder(SequentialEncoder):
    """Lyra's encoder ``[B, 1, T] -> [B, dim, T / hop_length]``, causal; hop_length is the product of the strides.

    Args:
        channels: C, the width after the first convolution.
        dilations: of the residual units between two strides.
        group_width: input channels in a group of the strided convolutions and of the last one in each residual unit.
        latent_groups: groups of the convolution to the latents.
    """

    def __init__(
        self,
        dim: int = 64,
        channels: int = 64,
        strides: Sequence[int] = (16, 5, 2, 2),
        dilations: Sequence[int] = (1, 3, 9),
        group_width: int = 64,
        latent_groups: int = 4,
    ):
        super().__init__(dim, math.prod(strides))
        first, *others = strides
        layers: list[nn.Module] = [CausalConv1d(1, channels, 4 * first, first)]
        for stride in others:
            layers += [SeparableUnit(channels, dilation, group_width) for dilation in dilations]
            groups = max(1, channels // group_width)
            layers += [leaky(), CausalConv1d(channels, 2 * channels, 2 * stride, stride, groups=groups)]
            channels *= 2
        self.layers.extend([*layers, leaky(), CausalConv1d(channels, dim, 3, groups=latent_groups)])
