"""The residual unit of SoundStream, EnCodec and Mimi."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from codec.layers.conv import CausalConv1d
from codec.layers.streaming import Sequential, State


@dataclass(frozen=True)
class ResidualUnits:
    """Shape of the residual units between two resampling layers.

    SoundStream: dilations (1, 3, 9), kernel 7, compress 1; EnCodec and Mimi: dilations (1,), kernel 3, compress 2.
    """

    dilations: Sequence[int] = (1, 3, 9)  # one unit for each entry
    kernel: int = 7  # of the dilated convolution; the second one is pointwise
    compress: int = 1  # the hidden width is channels / compress
    shortcut: str = "identity"  # or "conv": a pointwise convolution, as in the released EnCodec package

    def __post_init__(self):
        if self.shortcut not in ("identity", "conv"):
            raise ValueError(f"units.shortcut is {self.shortcut!r}; valid are 'identity' and 'conv'")

    def build(self, channels: int, weight_norm: bool) -> list[nn.Module]:
        return [ResidualUnit(channels, d, self, weight_norm) for d in self.dilations]


class ResidualUnit(nn.Module):
    """``[B, C, T] -> [B, C, T]``: ELU, dilated convolution, ELU, pointwise convolution, plus the input."""

    def __init__(self, channels: int, dilation: int, units: ResidualUnits, weight_norm: bool):
        super().__init__()
        hidden = channels // units.compress
        self.block = Sequential(
            nn.ELU(),
            CausalConv1d(channels, hidden, units.kernel, dilation=dilation, weight_norm=weight_norm),
            nn.ELU(),
            CausalConv1d(hidden, channels, 1, weight_norm=weight_norm),
        )
        identity = units.shortcut == "identity"
        self.shortcut = nn.Identity() if identity else CausalConv1d(channels, channels, 1, weight_norm=weight_norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        y, state = self.block.step(x, state)
        return self.shortcut(x) + y, state
