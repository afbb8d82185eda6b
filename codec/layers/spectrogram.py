"""Spectrograms for discriminators and losses, in fp32 whatever the precision of training."""

import warnings

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from codec.layers.precision import fp32


class Spectrogram(nn.Module):
    """Complex STFT: wav ``[B, 1, T]`` -> complex64 ``[B, window / 2 + 1, F]``; ValueError if T is too short.

    ``window`` (periodic Hann, times ``scale``), ``hop`` and ``pad`` are in samples. ``pad`` is reflection at both ends
    (literature: 0, (window - hop) / 2, window / 2); with ``align``, it extends on the right to a multiple of the hop.
    """

    def __init__(self, window: int, hop: int, pad: int = 0, align: bool = False, scale: float = 1.0):
        super().__init__()
        self.hop, self.pad, self.align = hop, pad, align
        self.register_buffer("window", torch.hann_window(window) * scale, persistent=False)

    @fp32
    def forward(self, wav: Tensor) -> Tensor:
        size, samples = self.window.numel(), wav.shape[-1]
        right = self.pad + (-samples % self.hop if self.align else 0)
        if samples <= right or samples + self.pad + right < size:
            needed = max(right + 1, size - self.pad - right)
            raise ValueError(
                f"a waveform of {samples} samples is too short for a spectrogram with a window of {size}, "
                f"which needs at least {needed}: train on longer segments or configure shorter windows"
            )
        if right:
            wav = F.pad(wav, (self.pad, right), mode="reflect")
        return torch.stft(wav.squeeze(1), size, self.hop, window=self.window, center=False, return_complex=True)


def real_and_imaginary(spectrum: Tensor) -> Tensor:
    """Complex ``[B, bins, F]`` -> fp32 ``[B, 2, F, bins]``: time before frequency, as in EnCodec and DAC."""
    return torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, bins, F, 2] -> [B, 2, F, bins]


def mel_filters(sample_rate: int, bins: int, bands: int, f_min: float = 0.0, slaney: bool = False) -> Tensor:
    """Triangular mel filters ``[bands, bins]`` from f_min to sample_rate / 2 (Hz); narrow ones may contain no bin.

    ``slaney``: Slaney's scale and unit area (librosa) instead of the HTK scale and unit height (torchaudio).
    """
    style = "slaney" if slaney else "htk"
    with warnings.catch_warnings():  # about the empty filters
        warnings.simplefilter("ignore")
        filters = torchaudio.functional.melscale_fbanks(
            bins, f_min, sample_rate / 2, bands, sample_rate, norm="slaney" if slaney else None, mel_scale=style
        )
    return filters.T


class MelSpectrogram(nn.Module):
    """Mel spectrogram: wav ``[B, 1, T]`` -> ``[B, bands, ceil(T / hop)]``, with a Hann window and hop = window / 4.

    Frames as in EnCodec: reflection of (window - hop) / 2 at the ends (DAC centres frames, which gives one more).
    Rates and ``f_min`` are in Hz, ``window`` in samples, a multiple of 4. ``power``: 1 for magnitudes, 2 for squares.
    ``normalized`` scales the window to energy 1. ``slaney`` as in :func:`mel_filters`.
    """

    def __init__(
        self,
        sample_rate: int,
        window: int,
        bands: int,
        f_min: float = 0.0,
        power: int = 1,
        normalized: bool = False,
        slaney: bool = False,
    ):
        super().__init__()
        if window % 4:
            raise ValueError(f"window must be a multiple of 4 samples, for a hop of a quarter of it: got {window}")
        self.power, hop = power, window // 4
        self.spectrogram = Spectrogram(window, hop, pad=(window - hop) // 2, align=True)
        if normalized:
            self.spectrogram.window /= self.spectrogram.window.square().sum().sqrt()
        filters = mel_filters(sample_rate, window // 2 + 1, bands, f_min, slaney)
        self.register_buffer("filters", filters.contiguous(), persistent=False)  # [bands, bins]

    @fp32
    def forward(self, wav: Tensor) -> Tensor:
        x = self.spectrogram(wav)
        x = x.abs() if self.power == 1 else torch.view_as_real(x).square().sum(-1)
        return self.filters @ x  # [B, bins, F] -> [B, bands, F]
