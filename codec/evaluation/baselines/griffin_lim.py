"""Griffin-Lim: speech from its mel spectrogram without a network, as a reference for vocoders."""

from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from codec.evaluation.baselines.base import System

WINDOW, HOP, MELS, HIGHEST = 1024, 256, 80, 8000.0  # samples, samples, bands, Hz
FLOOR = 1e-5  # lowest mel magnitude, as speech synthesis clips before the logarithm
INVERSION_ROUNDS = 50
MOMENTUM = 0.99


class GriffinLim(System):
    """Griffin-Lim: mel magnitudes -> linear magnitudes -> waveform, at the level of the mel spectrogram.

    The mel spectrogram is that of HiFi-GAN (Kong et al., NeurIPS 2020, arXiv 2010.05646): at 22,050 Hz, Hann windows of
    1024 samples, hop 256, 80 Slaney bands of equal area up to 8 kHz, clamped at 1e-5. Linear magnitudes come from the
    multiplicative updates of Lee and Seung (NeurIPS 2000) for least squares with fixed filters; phases from Griffin and
    Lim (IEEE TASSP 32(2), 1984), ``iterations`` with the momentum of Perraudin, Balazs and Søndergaard (WASPAA 2013).
    ``seed``: of the initial phases, the same for every clip.
    """

    sample_rate = 22_050

    def __init__(self, iterations: int = 60, seed: int = 0):
        self.iterations, self.seed = iterations, seed
        self.window = torch.hann_window(WINDOW)
        bands = torchaudio.functional.melscale_fbanks(
            WINDOW // 2 + 1, 0.0, HIGHEST, MELS, self.sample_rate, norm="slaney", mel_scale="slaney"
        )
        self.filters = bands.T.contiguous()  # [M, bins]

    @torch.inference_mode()
    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        samples = F.pad(wav.reshape(1, -1).float().cpu(), (0, max(0, WINDOW - wav.shape[-1])))
        magnitudes = self.magnitudes(self.mel(samples))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            decoded = torchaudio.functional.griffinlim(
                magnitudes,
                self.window,
                n_fft=WINDOW,
                hop_length=HOP,
                win_length=WINDOW,
                power=1.0,
                n_iter=self.iterations,
                momentum=MOMENTUM,
                length=samples.shape[-1],
                rand_init=True,
            )
        return decoded[None, :, : wav.shape[-1]]

    def mel(self, wav: Tensor) -> Tensor:
        """wav ``[1, T]`` of at least half a window -> magnitudes ``[1, M, 1 + T // hop]``, frames centred."""
        spectrum = torch.stft(wav, WINDOW, HOP, window=self.window, return_complex=True).abs()
        return (self.filters @ spectrum).clamp(min=FLOOR)

    def magnitudes(self, mel: Tensor) -> Tensor:
        """mel ``[1, M, F]`` -> non-negative magnitudes ``[1, bins, F]`` of about this mel; 0 outside all bands."""
        target = self.filters.T @ mel
        estimate = target
        for _ in range(INVERSION_ROUNDS):
            estimate = estimate * target / (self.filters.T @ (self.filters @ estimate)).clamp(min=1e-12)
        return estimate

    def facts(self) -> dict[str, Any]:
        rate = self.sample_rate / HOP
        return {"kbps": None, "mels": MELS, "frame_rate_hz": rate, "iterations": self.iterations}
