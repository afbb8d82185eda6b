"""Relative distance of complex spectra and of magnitudes, at several resolutions.

Like the spectral convergence of Parallel WaveGAN (arXiv 1910.11480, section 2.2), but with L1 instead of L2, so that
single loud frames do not dominate, and with a complex part, which constrains the phase where there is energy.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.layers.spectrogram import Spectrogram
from codec.utils.distributed import mean_over_ranks


class RelativeSpectrum(nn.Module):
    """Relative spectral distance: (target, estimate) ``[B, 1, T]`` -> scalar, the mean over resolutions of

        complex * sum |X - Y| / sum |X|  +  magnitude * sum ||X| - |Y|| / sum |X|.

    0 for equal inputs, 1 per part for a silent estimate. The sum |X| is over the batch of all ranks.
    Windows are Hann, in samples, hop = window / 4; T must be at least the longest one. ``floor`` is added to the mean
    magnitude of the target, against division by silence.
    """

    def __init__(
        self,
        windows: Sequence[int] = (256, 512, 1024),
        complex: float = 1.0,
        magnitude: float = 1.0,
        floor: float = 1e-4,
    ):
        super().__init__()
        self.complex, self.magnitude, self.floor = complex, magnitude, floor
        self.longest = max(windows)
        self.spectrograms = nn.ModuleList(Spectrogram(size, size // 4, pad=size // 2) for size in windows)

    @fp32
    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        if target.shape[-1] < self.longest:
            raise ValueError(
                f"{target.shape[-1]} samples are too short for a spectral window, which needs at least {self.longest}: "
                "train on longer segments or configure shorter windows."
            )
        pairs = [(spectrogram(target), spectrogram(estimate)) for spectrogram in self.spectrograms]
        means = mean_over_ranks([x.abs().mean() for x, _ in pairs])
        distances = (self._distance(x, y) / (mean + self.floor) for (x, y), mean in zip(pairs, means, strict=True))
        return sum(distances) / len(pairs)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Two complex spectra ``[B, bins, F]`` -> scalar."""
        return self.complex * (x - y).abs().mean() + self.magnitude * (x.abs() - y.abs()).abs().mean()
