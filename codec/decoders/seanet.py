"""SEANet decoder, fully causal, the mirror of ``codec/encoders/seanet.py`` (same papers and sections).

Convolution D -> C * 2 ** len(strides); optional LSTM; for each stride S: ELU, transposed convolution of kernel 2S and
stride S that halves the channels, residual units; ELU, convolution to one channel. No final tanh.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.decoders.base import Decoder
from codec.layers.conv import CausalConv1d, CausalConvTranspose1d
from codec.layers.lstm import ResidualLSTM
from codec.layers.seanet import ResidualUnits
from codec.layers.streaming import Sequential, State, step, steps


class SEANetDecoder(Decoder):
    """SEANet decoder ``[B, dim, F] -> [B, 1, F * hop_length]``; hop_length is the product of the strides.

    Arguments are those of :class:`codec.encoders.seanet.SEANetEncoder`; strides are applied in reverse.
    """

    lookahead = 0

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
        super().__init__()
        self.dim, self.hop_length = dim, math.prod(strides)
        channels *= 2 ** len(strides)
        layers: list[nn.Module] = [CausalConv1d(dim, channels, kernel, weight_norm=weight_norm)]
        if lstm:
            layers += [ResidualLSTM(channels, lstm)]
        for stride in reversed(strides):
            up = CausalConvTranspose1d(channels, channels // 2, 2 * stride, stride, weight_norm=weight_norm)
            layers += [nn.ELU(), up]
            channels //= 2
            layers += units.build(channels, weight_norm)
        layers += [nn.ELU(), CausalConv1d(channels, 1, last_kernel, weight_norm=weight_norm)]
        self.layers = Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        *body, last = self.layers
        for layer in body:
            latents = layer(latents)
        # A bf16 waveform has a noise floor of -56 dB, by which discriminators would recognise outputs.
        with torch.autocast(latents.device.type, enabled=False):
            return last(latents.float())

    def step(self, latents: Tensor, state: State = None) -> tuple[Tensor, State]:
        """latents ``[B, dim, n]`` -> wav ``[B, 1, n * hop_length]``."""
        *body, last = self.layers
        states = state if state is not None else (None,) * len(self.layers)
        x, new = steps(body, latents, states[:-1])
        with torch.autocast(x.device.type, enabled=False):
            y, after = step(last, x.float(), states[-1])
        return y, (*new, after)

    def full_precision(self) -> list[nn.Module]:
        """Layers that stay in fp32 when the weights have a lower precision."""
        return [self.layers[-1]]
