"""SEANet decoder, fully causal, the mirror of ``codec/encoders/seanet.py`` (same papers and sections).

Convolution D -> C * 2 ** len(strides); optional LSTM; for each stride S: ELU, transposed convolution of kernel 2S and
stride S that halves the channels, residual units; ELU, convolution to one channel. No final tanh.
"""

import math
from collections.abc import Sequence

from torch import nn

from codec.decoders.base import SequentialDecoder
from codec.layers.conv import CausalConv1d, CausalConvTranspose1d
from codec.layers.lstm import ResidualLSTM
from codec.layers.seanet import ResidualUnits


class SEANetDecoder(SequentialDecoder):
    """SEANet decoder ``[B, dim, F] -> [B, 1, F * hop_length]``; hop_length is the product of the strides.

    Arguments are those of :class:`codec.encoders.seanet.SEANetEncoder`; strides are applied in reverse.
    """

    def __init__(
        self,
        dim: int,
        channels: int,
        strides: Sequence[int],
        units: ResidualUnits,
        kernel: int = 7,
        last_kernel: int = 3,
        lstm: int = 0,
        weight_norm: bool = True,
    ):
        super().__init__(dim, math.prod(strides))
        channels *= 2 ** len(strides)
        layers: list[nn.Module] = [CausalConv1d(dim, channels, kernel, weight_norm=weight_norm)]
        if lstm:
            layers += [ResidualLSTM(channels, lstm)]
        for stride in reversed(strides):
            up = CausalConvTranspose1d(channels, channels // 2, 2 * stride, stride, weight_norm=weight_norm)
            layers += [nn.ELU(), up]
            channels //= 2
            layers += units.build(channels, weight_norm)
        self.layers.extend([*layers, nn.ELU(), CausalConv1d(channels, 1, last_kernel, weight_norm=weight_norm)])
