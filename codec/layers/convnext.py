"""ConvNeXt block in one dimension (arXiv 2201.03545; Vocos, arXiv 2306.00814, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    """ConvNeXt block ``[B, C, F] -> [B, C, F]``: x + LayerScale(MLP(norm(depthwise convolution(x)))), GELU in the MLP.

    The convolution has no look-ahead if ``causal``, else it is centred and ``kernel`` is odd. ``scale`` is the initial
    value of LayerScale (1 / number of blocks in Vocos).
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
