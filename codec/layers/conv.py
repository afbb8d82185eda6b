"""Causal convolutions (SoundStream, arXiv 2107.03312, section III-A; EnCodec, arXiv 2210.13438, section 3.1).

Padding is on the left when downsampling, trimming on the right when upsampling: T samples, T a multiple of the stride,
give exactly T / stride frames, and these give T samples back. Output frame i depends on inputs up to
(i + 1) * stride - 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from codec.layers.streaming import State, StreamingLayer


def maybe_weight_norm(conv: nn.Module, use: bool) -> nn.Module:
    """Weight norm as a parametrization (the hook-based one cannot be deep-copied)."""
    return parametrizations.weight_norm(conv) if use else conv


def fold_weight_norm(module: nn.Module) -> nn.Module:
    """Replace every weight-norm parametrization inside ``module`` by its weight, in place."""
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight"):
            # A deep copy shares its class, on which `weight` is a property that removing would delete for both.
            shared = type(part)
            part.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return module


class CausalConv1d(StreamingLayer):
    """Convolution ``[B, C, T] -> [B, C', T / stride]`` without look-ahead; ValueError unless stride divides T.

    ``pad_mode`` is the left padding of the signal: "constant" (zeros) or "replicate" (the first sample).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        pad_mode: str = "constant",
        weight_norm: bool = False,
    ):
        super().__init__()
        receptive_field = (kernel_size - 1) * dilation + 1
        if receptive_field < stride:
            raise ValueError(
                f"kernel {kernel_size} (dilation {dilation}) is shorter than stride {stride}: samples are lost"
            )
        if pad_mode not in ("constant", "replicate"):
            raise ValueError(f"pad_mode is {pad_mode!r}; valid are 'constant' and 'replicate'")
        self.stride, self.padding, self.pad_mode = stride, receptive_field - stride, pad_mode
        conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, dilation=dilation, groups=groups, bias=bias)
        self.conv = maybe_weight_norm(conv, weight_norm)

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, C, n * stride]``; the state is the last ``padding`` inputs ``[B, C, padding]`` and, with
        pad_mode="replicate", whether the stream has started (bool scalar)."""
        if x.shape[-1] % self.stride:
            raise ValueError(f"a length of {x.shape[-1]} is not a multiple of the stride {self.stride}")
        if self.padding == 0:
            return self.conv(x), None
        x = self._pad(x, state)
        tail = x[..., x.shape[-1] - self.padding :]
        started = x.new_ones((), dtype=torch.bool)
        return self.conv(x), tail if self.pad_mode == "constant" else (tail, started)

    def _pad(self, x: Tensor, state: State) -> Tensor:
        if self.pad_mode == "constant":
            return F.pad(x, (self.padding, 0)) if state is None else torch.cat([state, x], dim=-1)
        first = x[..., :1].expand(-1, -1, self.padding)
        return torch.cat([first if state is None else torch.where(state[1], state[0], first), x], dim=-1)


class CausalConvTranspose1d(nn.Module):
    """Transposed convolution ``[B, C, F] -> [B, C', F * stride]``, the mirror of :class:`CausalConv1d`.

    The last ``kernel_size - stride`` outputs are incomplete: offline they are trimmed, in a stream they are the state.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        groups: int = 1,
        bias: bool = True,
        weight_norm: bool = False,
    ):
        super().__init__()
        if kernel_size < stride:
            raise ValueError(f"kernel {kernel_size} is shorter than stride {stride}: the output would have holes")
        self.overlap = kernel_size - stride
        conv = nn.ConvTranspose1d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=bias)
        self.conv = maybe_weight_norm(conv, weight_norm)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y[..., : y.shape[-1] - self.overlap]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, C, n]``; the state is the incomplete tail ``[B, C', overlap]``, without bias."""
        y = self.conv(x)
        if self.overlap == 0:
            return y, None
        bias = self.conv.bias
        if state is not None:
            y = torch.cat([y[..., : self.overlap] + state, y[..., self.overlap :]], dim=-1)
        out, tail = y[..., : -self.overlap], y[..., -self.overlap :]
        return out, tail if bias is None else tail - bias[:, None]
