"""The decoder of Lyra V2, the mirror of ``codec/encoders/lyra.py``; its last layer is linear."""

import math
from collections.abc import Sequence

from torch import nn

from codec.decoders.base import SequentialDecoder
from codec.layers.conv import CausalConv1d, CausalConvTranspose1d
from codec.layers.separable import SeparableUnit, leaky


class LyraDecoder(SequentialDecoder):
    """Lyra's decoder ``[B, dim, F] -> [B, 1, F * hop_length]``, causal.

    Arguments are those of :class:`codec.encoders.lyra.LyraEncoder`; strides are applied in reverse, and ``group_width``
    is the number of output channels in a group of the transposed convolutions.
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
        channels *= 2 ** len(others)
        layers: list[nn.Module] = [CausalConv1d(dim, channels, 3, groups=latent_groups)]
        for stride in reversed(others):
            channels //= 2
            groups = max(1, channels // group_width)
            layers += [leaky(), CausalConvTranspose1d(2 * channels, channels, 2 * stride, stride, groups=groups)]
            layers += [SeparableUnit(channels, dilation, group_width) for dilation in dilations]
        self.layers.extend([*layers, leaky(), CausalConvTranspose1d(channels, 1, 4 * first, first)])
