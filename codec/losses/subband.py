"""STFT loss of pseudo-QMF sub-bands (UniAudio, arXiv 2310.00704; multi-band MelGAN, arXiv 2005.05106).

Prototype of Lin and Vaidyanathan (1998, "A Kaiser window approach for the design of prototype filters of cosine
modulated filterbanks"). Unlike the usual code, whose constants (62 taps, cut-off 0.142) are tuned for four bands,
cut-off and taps depend on the number of bands: six reconstruct at 62 dB SNR instead of 5 dB.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.losses.stft import MultiResolutionSTFT


class PQMF(nn.Module):
    """Pseudo-QMF analysis: wav ``[B, 1, T]`` -> sub-bands ``[B, bands, ceil(T / bands)]``, from low to high.

    The prototype has 16 * bands + 1 taps, stop band about -90 dB.
    """

    def __init__(self, bands: int):
        super().__init__()
        self.bands = bands
        filters = cosine_modulated(prototype(bands), bands)
        self.register_buffer("filters", filters.float().unsqueeze(1), persistent=False)  # [bands, 1, taps]

    @fp32
    def forward(self, wav: Tensor) -> Tensor:
        return F.conv1d(wav, self.filters, stride=self.bands, padding=self.filters.shape[-1] // 2)


def prototype(bands: int, beta: float = 9.0) -> Tensor:
    """float64 ``[16 * bands + 1]`` low-pass whose shifted copies add up to a nearly flat response."""
    taps = 16 * bands + 1
    n = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64)
    cutoffs = torch.linspace(0.5, 1.0, 2001, dtype=torch.float64)[:, None] / bands  # of half the sample rate
    candidates = cutoffs * torch.sinc(cutoffs * n) * window
    # Reconstruction is flat where the autocorrelation vanishes at every multiple of 2 * bands but 0.
    spectra = torch.fft.rfft(candidates, n=2 * taps)
    correlation = torch.fft.irfft(spectra.abs().square(), n=2 * taps)
    ripple = correlation[:, 2 * bands : taps : 2 * bands].abs().amax(1) / correlation[:, 0]
    return candidates[ripple.argmin()]


def cosine_modulated(low_pass: Tensor, bands: int) -> Tensor:
    """``[taps]`` -> ``[bands, taps]``: the prototype shifted to each band, with phases that cancel the aliases of
    neighbouring bands in the synthesis by the transposed filter bank."""
    n = torch.arange(len(low_pass), dtype=low_pass.dtype) - len(low_pass) // 2
    k = torch.arange(bands, dtype=low_pass.dtype)[:, None]
    phase = (-1) ** k * torch.pi / 4
    return 2 * low_pass * torch.cos((2 * k + 1) * torch.pi / (2 * bands) * n + phase)


class SubbandSTFT(nn.Module):
    """STFT loss of all sub-bands: (target, estimate) ``[B, 1, T]`` -> scalar; sizes in sub-band samples."""

    def __init__(
        self,
        bands: int = 6,
        ffts: Sequence[int] = (128, 256, 256),
        hops: Sequence[int] = (20, 40, 50),
        windows: Sequence[int] = (80, 120, 200),
    ):
        super().__init__()
        self.split = PQMF(bands)
        self.stft = MultiResolutionSTFT(ffts, hops, windows)

    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        return self.stft(self.split(target), self.split(estimate))
