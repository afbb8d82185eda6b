"""Multi-period discriminator of HiFi-GAN (arXiv 2010.05646, section 2.3), with DAC's widths (arXiv 2306.06546).

Unlike DAC's code, a length that is a multiple of the period is not padded by another period.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.discriminators.base import Maps, feature_maps


class MultiPeriod(nn.Module):
    """Multi-period discriminator: wav ``[B, 1, T]`` -> len(widths) + 1 maps ``[B, C, ceil(T / p) / stride, p]`` per p.

    Periods are in samples, pairwise coprime; the kernel is along the samples of one phase.
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        widths: Sequence[int] = (32, 128, 512, 1024, 1024),
        kernel: int = 5,
    ):
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, widths, kernel) for period in periods)

    def forward(self, wav: Tensor) -> Maps:
        return [period(wav) for period in self.periods]


class PeriodDiscriminator(nn.Module):
    """One period; stride 3 in every layer but the last two."""

    def __init__(self, period: int, widths: Sequence[int], kernel: int):
        super().__init__()
        self.period = period
        self.layers = nn.ModuleList()
        for i, (before, after) in enumerate(zip([1, *widths[:-1]], widths, strict=True)):
            stride = (3 if i < len(widths) - 1 else 1, 1)
            self.layers.append(weight_norm(nn.Conv2d(before, after, (kernel, 1), stride, (kernel // 2, 0))))
        self.last = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wav: Tensor) -> list[Tensor]:
        missing = -wav.shape[-1] % self.period
        if missing:
            wav = F.pad(wav, (0, missing), mode="reflect")
        columns = wav.unflatten(-1, (-1, self.period))  # [B, 1, T] -> [B, 1, T / p, p]
        return feature_maps(columns, self.layers, 0.1, self.last)
