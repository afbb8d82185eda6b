"""Griffin-Lim: speech from its mel spectrogram without a network, as a reference for vocoders."""

from typing import Any

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from codec.evaluation.baselines.base import System

FLOOR = 1e-5  # lowest mel magnitude, as speech synthesis clips before the logarithm
INVERSION_ROUNDS = 50
MOMENTUM = 0.99


class GriffinLim(System):
    """Mel magnitudes -> linear magnitudes -> waveform.

    The mel spectrogram is that of HiFi-GAN (Kong et al., NeurIPS 2020, arXiv 2010.05646): at 22,050 Hz, Hann windows of
    1024 samples, hop 256, 80 Slaney bands of equal area up to 8 kHz, clamped at 1e-5. Linear magnitudes come from the
    multiplicative updates of Lee and Seung (NeurIPS 2000) for least squares with fixed filters; phases from Griffin and
    Lim (IEEE TASSP 32(2), 1984) with the momentum of Perraudin, Balazs and Søndergaard (WASPAA 2013). The level is that
    of the mel spectrogram.

    Args:
        iterations: of the phase reconstruction.
        seed: of the initial phases, the same for every clip.
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
        samples = F.pad(wav.reshape(1, -1).float().cpu(), (0, max(0, len(self.window) - wav.shape[-1])))
        magnitudes = self.magnitudes(self.mel(samples))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            decoded = torchaudio.functional.griffinlim(
                magnitudes,
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
        return decoded[None, :, : wav.shape[-1]]

    def mel(self, wav: Tensor) -> Tensor:
        """wav ``[1, T]`` of at least half a window -> magnitudes ``[1, M, 1 + T // hop]``, frames centred."""
        size = len(self.window)
        spectrum = torch.stft(wav, size, self.hop, window=self.window, return_complex=True).abs()
        return (self.filters @ spectrum).clamp(min=FLOOR)

    def magnitudes(self, mel: Tensor) -> Tensor:
        """mel ``[1, M, F]`` -> non-negative magnitudes ``[1, bins, F]`` of about this mel; 0 outside all bands."""
        target = self.filters.T @ mel
        estimate = target
        for _ in range(INVERSION_ROUNDS):
            estimate = estimate * target / (self.filters.T @ (self.filters @ estimate)).clamp(min=1e-12)
        return estimate

    def facts(self) -> dict[str, Any]:
        rate = self.sample_rate / self.hop
        return {"kbps": None, "mels": len(self.filters), "frame_rate_hz": rate, "iterations": self.iterations}
