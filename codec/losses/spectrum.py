"""Relative distance of complex spectra and of their magnitudes, at several resolutions.

Log-mel losses hear level and forgive phase; this one ties the phase where there is energy and weights bins by their
size, as loudness does. Close to the spectral convergence of Parallel WaveGAN (arXiv 1910.11480, section 2.2), with L1
in place of L2, so that single loud frames do not decide, and with a complex part.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.utils.distributed import mean_over_ranks


class RelativeSpectrum(nn.Module):
    """(target, estimate) ``[B, 1, T]`` -> scalar: mean over resolutions of

        complex * sum |X - Y| / sum |X|  +  magnitude * sum ||X| - |Y|| / sum |X|.

    0 for equal inputs, 1 per part for a silent estimate. The sum |X| is over the batch of all processes.

    Args:
        windows: in samples; Hann, hop a quarter.
        complex, magnitude: weights of the two parts.
        floor: added to the mean magnitude of the target, against division by silence.

    Raises:
        ValueError: when called with waveforms shorter than the longest window.
    """

    def __init__(
        self,
        windows: Sequence[int] = (256, 512, 1024),
        complex: float = 1.0,
        magnitude: float = 1.0,
        floor: float = 1e-4,
    ):
        super().__init__()
        self.windows, self.complex, self.magnitude, self.floor = tuple(windows), complex, magnitude, floor
        for size in windows:
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)

    @fp32
    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        if target.shape[-1] < max(self.windows):
            raise ValueError(
                f"{target.shape[-1]} samples are too short for a spectral window of {max(self.windows)}: "
                "train on longer segments or configure shorter windows."
            )
        pairs = [(self._spectrum(target, size), self._spectrum(estimate, size)) for size in self.windows]
        loudness = mean_over_ranks([x.abs().mean() for x, _ in pairs])
        distances = (self._distance(x, y) / (mean + self.floor) for (x, y), mean in zip(pairs, loudness, strict=True))
        return sum(distances) / len(pairs)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Two spectra ``[B, bins, F]``, complex -> scalar."""
        return self.complex * (x - y).abs().mean() + self.magnitude * (x.abs() - y.abs()).abs().mean()

    def _spectrum(self, wav: Tensor, size: int) -> Tensor:
        pad = size // 2
        wav = F.pad(wav, (pad, pad), mode="reflect")[:, 0]
        window = self.get_buffer(f"window{size}")
        return torch.stft(wav, size, size // 4, window=window, center=False, return_complex=True)
