"""Speech from its mel spectrogram without a network: what a frame-wise description keeps, phases being made up."""

from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from codec.evaluation.baselines.base import System

FLOOR = 1e-5  # the least mel magnitude, below which a log mel of speech synthesis is cut
INVERSION_ROUNDS = 50
MOMENTUM = 0.99


class GriffinLim(System):
    """Mel magnitudes -> magnitudes -> sound.

    The mel is that of HiFi-GAN (Kong et al., NeurIPS 2020, arXiv 2010.05646), which most speech synthesis has taken
    over: at 22,050 Hz, windows (Hann) of 1024 samples, hop 256, 80 of Slaney's bands of equal area up to 8 kHz, not
    below 1e-5. Its logarithm is undone exactly, and so not taken.

    Non-negative magnitudes with this mel are found by the multiplicative updates of Lee and Seung (NeurIPS 2000) for
    least squares with fixed filters, and phases by Griffin and Lim (IEEE TASSP 32(2), 1984) with the momentum of
    Perraudin, Balazs and Søndergaard (WASPAA 2013), from random ones. The level is the mel's: nothing is rescaled.

    Args:
        iterations: of the phases.
        seed: of the first phases; every clip begins with the same.
    """

    def __init__(
        self,
        sample_rate: int = 22_050,
        window: int = 1024,
        hop: int = 256,
        mels: int = 80,
        highest: float = 8000.0,
        iterations: int = 60,
        seed: int = 0,
    ):
        self.sample_rate, self.hop, self.iterations, self.seed = sample_rate, hop, iterations, seed
        self.window = torch.hann_window(window)
        bands = torchaudio.functional.melscale_fbanks(
            window // 2 + 1, 0.0, highest, mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
        self.filters = bands.T.contiguous()  # [M, bins]

    @torch.inference_mode()
    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        length = wav.shape[-1]
        samples = F.pad(wav.reshape(1, -1).float().cpu(), (0, max(0, len(self.window) - length)))
        spectrum = self.magnitudes(self.mel(samples))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            sound = torchaudio.functional.griffinlim(
                spectrum,
                self.window,
                n_fft=len(self.window),
                hop_length=self.hop,
                win_length=len(self.window),
                power=1.0,
                n_iter=self.iterations,
                momentum=MOMENTUM,
                length=samples.shape[-1],
                rand_init=True,
            )
        return sound[None, :, :length]

    def mel(self, wav: Tensor) -> Tensor:
        """wav ``[1, T]`` of half a window at least -> magnitudes ``[1, M, 1 + T // hop]``, frames centred."""
        size = len(self.window)
        spectrum = torch.stft(wav, size, self.hop, window=self.window, return_complex=True).abs()
        return (self.filters @ spectrum).clamp(min=FLOOR)

    def magnitudes(self, mel: Tensor) -> Tensor:
        """mel ``[1, M, F]`` -> non-negative magnitudes ``[1, bins, F]`` with about this mel; 0 outside all bands."""
        wanted = self.filters.T @ mel
        found = wanted
        for _ in range(INVERSION_ROUNDS):
            found = found * wanted / (self.filters.T @ (self.filters @ found)).clamp(min=1e-12)
        return found

    def facts(self) -> dict[str, Any]:
        return {
            "kbps": None,
            "mels": len(self.filters),
            "frame_rate_hz": self.sample_rate / self.hop,
            "iterations": self.iterations,
        }
