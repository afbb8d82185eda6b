"""The complex spectrogram that the frequency-domain discriminators look at, always fp32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.discriminators.base import without_autocast


class Spectrum(nn.Module):
    """STFT with a periodic Hann window as long as the transform.

    window: window and transform length in samples; hop in samples.
    pad: samples of reflection at both ends; the field uses 0, (window - hop) / 2 and window / 2.
    align: also reflect at the right up to a whole number of hops.
    scale: factor on the result, folded into the window.
    """

    def __init__(self, window: int, hop: int, pad: int = 0, align: bool = False, scale: float = 1.0):
        super().__init__()
        self.hop, self.pad, self.align = hop, pad, align
        self.register_buffer("window", torch.hann_window(window) * scale, persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """wav `[B, 1, T]` -> complex64 `[B, window / 2 + 1, F]`.

        Raises ValueError where `wav` is too short for one window or for its own reflection.
        """
        size, samples = self.window.numel(), wav.shape[-1]
        right = self.pad + (-samples % self.hop if self.align else 0)
        if samples <= right or samples + self.pad + right < size:
            needed = max(right + 1, size - self.pad - right)
            raise ValueError(
                f"A waveform of {samples} samples is too short for a spectrogram with a window of {size}, "
                f"which needs at least {needed}: train on longer segments or configure shorter windows."
            )
        with without_autocast(wav):
            x = wav.float()
            if right:
                x = F.pad(x, (self.pad, right), mode="reflect")
            # [B, 1, T] -> [B, T] -> [B, bins, F]
            return torch.stft(x.squeeze(1), size, self.hop, window=self.window, center=False, return_complex=True)


def real_and_imaginary(spectrum: Tensor) -> Tensor:
    """complex `[B, bins, F]` -> fp32 `[B, 2, F, bins]`: time before frequency, as in EnCodec and DAC."""
    return torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, bins, F, 2] -> [B, 2, F, bins]
