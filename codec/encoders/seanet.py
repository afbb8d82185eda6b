"""SEANet encoder, fully causal (SoundStream, arXiv 2107.03312, section III-A; EnCodec, arXiv 2210.13438, section 3.1).

Convolution 1 -> C; for each stride S: residual units, ELU, convolution of kernel 2S and stride S that doubles the
channels; optional LSTM; ELU, convolution to the D latent channels.
"""

import math
from collections.abc import Sequence

from torch import nn

from codec.encoders.base import SequentialEncoder
from codec.layers.conv import CausalConv1d
from codec.layers.lstm import ResidualLSTM
from codec.layers.seanet import ResidualUnits


class SEANetEncoder(SequentialEncoder):
    """SEANet encoder ``[B, 1, T] -> [B, dim, T / hop_length]``; hop_length is the product of the strides.

    ``channels`` is the width C after the first convolution, ``kernel`` the size of the first convolution, ``lstm`` the
    number of LSTM layers before the last one (0: no LSTM).
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
        layers: list[nn.Module] = [CausalConv1d(1, channels, kernel, weight_norm=weight_norm)]
        for stride in strides:
            layers += units.build(channels, weight_norm)
            down = CausalConv1d(channels, 2 * channels, 2 * stride, stride, weight_norm=weight_norm)
            layers += [nn.ELU(), down]
            channels *= 2
        if lstm:
            layers += [ResidualLSTM(channels, lstm)]
        self.layers.extend([*layers, nn.ELU(), CausalConv1d(channels, dim, last_kernel, weight_norm=weight_norm)])
