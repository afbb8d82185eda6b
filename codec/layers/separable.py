"""The depthwise-separable residual unit of Lyra V2 (SoundStream as Google released it, github.com/google/lyra)."""

from torch import Tensor, nn

from codec.layers.conv import CausalConv1d
from codec.layers.streaming import Sequential, State

SLOPE = 0.3  # of LeakyReLU for negative inputs


def leaky() -> nn.Module:
    return nn.LeakyReLU(SLOPE)


class SeparableUnit(nn.Module):
    """``[B, C, T] -> [B, C, T]``: LeakyReLU, dilated depthwise convolution of kernel 3, pointwise convolution,
    LeakyReLU, pointwise convolution in groups of ``group_width`` inputs, plus the input."""

    def __init__(self, channels: int, dilation: int, group_width: int):
        super().__init__()
        self.block = Sequential(
            leaky(),
            CausalConv1d(channels, channels, 3, dilation=dilation, groups=channels),
            CausalConv1d(channels, channels, 1),
            leaky(),
            CausalConv1d(channels, channels, 1, groups=max(1, channels // group_width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        y, state = self.block.step(x, state)
        return x + y, state
