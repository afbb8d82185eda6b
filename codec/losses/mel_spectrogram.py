"""The mel spectrogram that the mel losses compare. fp32, whatever autocast says.

One framing for all recipes: ceil(T / hop) frames, reflection of (window - hop) / 2 at the ends, as in
EnCodec. DAC centres the frames, which gives one more.
"""

import warnings

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn


class MelSpectrogram(nn.Module):
    """wav `[B, 1, T]` -> mel `[B, M, ceil(T / hop)]` with a Hann window and hop = window / 4.

    sample_rate and f_min in Hz, window in samples.
    power: 1 for magnitudes, 2 for their squares. normalized: as if the window had energy 1.
    slaney: Slaney's scale and filters of unit area (librosa), not the HTK scale and height 1 (torchaudio).
    Short windows with many bands have filters without a bin; their rows are 0.
    """

    def __init__(
        self,
        sample_rate: int,
        window: int,
        mels: int,
        f_min: float = 0.0,
        power: int = 1,
        normalized: bool = False,
        slaney: bool = False,
    ):
        super().__init__()
        if window % 4:
            raise ValueError(f"window must be a multiple of 4 samples, for a hop of a quarter of it: got {window}.")
        self.hop, self.power = window // 4, power
        hann = torch.hann_window(window)
        if normalized:
            hann = hann / hann.square().sum().sqrt()
        with warnings.catch_warnings():  # about the empty filters
            warnings.simplefilter("ignore")
            filters = torchaudio.functional.melscale_fbanks(
                window // 2 + 1,
                f_min,
                sample_rate / 2,
                mels,
                sample_rate,
                norm="slaney" if slaney else None,
                mel_scale="slaney" if slaney else "htk",
            )
        # Not persistent: a checkpoint carries what was learnt.
        self.register_buffer("window", hann, persistent=False)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)  # [M, bins]

    def forward(self, wav: Tensor) -> Tensor:
        """Raises ValueError where `wav` is too short for its own reflection, about 3/8 of the window."""
        size, samples = self.window.numel(), wav.shape[-1]
        left = (size - self.hop) // 2
        right = left + -samples % self.hop
        if samples <= right:
            raise ValueError(
                f"A waveform of {samples} samples is too short for a mel loss with a window of {size}, which "
                f"needs at least {right + 1}: train on longer segments or configure shorter windows."
            )
        with torch.autocast(wav.device.type, enabled=False):
            x = F.pad(wav.float(), (left, right), mode="reflect").squeeze(1)  # [B, 1, T] -> [B, T]
            x = torch.stft(x, size, self.hop, window=self.window, center=False, return_complex=True)
            x = x.abs() if self.power == 1 else torch.view_as_real(x).square().sum(-1)
            return self.filters @ x  # [B, bins, F] -> [B, M, F]
