"""ConvNeXt block in one dimension (arXiv 2201.03545; Vocos, arXiv 2306.00814, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    """``[B, C, F] -> [B, C, F]``: depthwise convolution, norm, pointwise MLP with GELU, LayerScale, plus the input.

    Args:
        channels: C.
        hidden: width of the MLP.
        kernel: of the depthwise convolution; odd unless causal.
        scale: initial value of LayerScale (1 / number of blocks in Vocos).
        causal: no look-ahead; otherwise the convolution is centred.
    """

    def __init__(self, channels: int, hidden: int, kernel: int = 7, scale: float = 0.1, causal: bool = False):
        super().__init__()
        self.pad = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
        self.depthwise = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(F.pad(x, self.pad)).transpose(1, 2)  # [B, F, C]
        y = self.down(F.gelu(self.up(self.norm(y)))) * self.scale
        return x + y.transpose(1, 2)
