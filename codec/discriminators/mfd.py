"""Multi-frequency discriminator of UniAudio (arXiv 2310.00704): six mel spectrograms from fine in time to
fine in frequency, each as linear and as log magnitude. Written from the description of uniaudio666/UniAudio @
bbc1498 and yangdongchao/RSTnet @ 5f01e1f, `MultiFrequencyDiscriminator`.

Feature maps are the activations, not the convolutions' outputs: the original's in-place LeakyReLU makes them
so. There are as many mel bands as bins, so the narrow bands at the bottom contain no bin at all. The original
floors every filter weight at 1e-6, which keeps these rows finite in the log, and so do we.
"""

import warnings
from collections.abc import Sequence

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.discriminators.base import Maps, activations, without_autocast
from codec.discriminators.spectrum import Spectrum


class MultiFrequency(nn.Module):
    """sample_rate in Hz; hops in samples, each with a window of 4 hops; hidden: widest layer, per hop."""

    def __init__(
        self,
        sample_rate: int,
        hops: Sequence[int] = (32, 64, 128, 256, 512, 1024),
        hidden: Sequence[int] = (64, 128, 256, 512, 512, 512),
    ):
        super().__init__()
        if len(hops) != len(hidden):
            raise ValueError(
                f"hops and hidden must be equally long, one width per spectrogram: got hops={list(hops)} and "
                f"hidden={list(hidden)}."
            )
        if bad := [width for width in hidden if width % 32]:
            raise ValueError(f"hidden widths must be multiples of 32 (the first layer has hidden / 32), got {bad}.")
        self.spectra = nn.ModuleList(MelPair(sample_rate, hop) for hop in hops)
        self.critics = nn.ModuleList(Critic(width) for width in hidden)

    def forward(self, wav: Tensor) -> Maps:
        """wav `[B, 1, T]`, T at least 8 times the largest hop -> 7 maps `[B, C, bands, F]` per hop.

        Raises ValueError where `wav` is shorter than that.
        """
        longest = max(spectrum.hop for spectrum in self.spectra)
        if wav.shape[-1] < 8 * longest:  # the third stride of 2 must leave two frames to reflect
            raise ValueError(
                f"A waveform of {wav.shape[-1]} samples is too short for the multi-frequency discriminator "
                f"with a hop of {longest}, which needs at least {8 * longest}: train on longer segments or "
                "configure smaller hops."
            )
        return [critic(pair(wav)) for pair, critic in zip(self.spectra, self.critics, strict=True)]


class MelPair(nn.Module):
    """wav `[B, 1, T]` -> fp32 `[B, 2, 2 * hop + 1, F]`: mel magnitude, and its decibels mapped from [-80, 20]
    to [0, 1].
    """

    def __init__(self, sample_rate: int, hop: int):
        super().__init__()
        self.hop = hop
        window = 4 * hop
        self.spectrum = Spectrum(window, hop, pad=window // 2, scale=window**-0.5)
        bins = window // 2 + 1
        with warnings.catch_warnings():  # about the empty filters: see the head of this file
            warnings.simplefilter("ignore")
            filters = torchaudio.functional.melscale_fbanks(bins, 0.0, sample_rate / 2, bins, sample_rate)
        self.register_buffer("filters", filters.T.clamp(min=1e-6).contiguous(), persistent=False)  # [bands, bins]

    def forward(self, wav: Tensor) -> Tensor:
        with without_autocast(wav):
            power = torch.view_as_real(self.spectrum(wav)).square().sum(-1)
            mel = self.filters @ power.clamp(min=1e-7).sqrt()  # [B, bins, F] -> [B, bands, F]
            log = ((20 * mel.log10() - 20 + 100) / 100).clamp(0, 1)
            return torch.stack([mel, log], dim=1)  # [B, 2, bands, F]


class Critic(nn.Module):
    """Seven 3x3 convolutions from width / 32 to width channels, every other one with stride 2."""

    def __init__(self, width: int):
        super().__init__()
        widths = [2, *(width // divisor for divisor in (32, 16, 8, 4, 2, 1)), 1]
        convs = [
            weight_norm(nn.Conv2d(widths[i], widths[i + 1], 3, stride=1 + i % 2, padding=1, padding_mode="reflect"))
            for i in range(7)
        ]
        self.layers, self.last = nn.ModuleList(convs[:-1]), convs[-1]

    def forward(self, mels: Tensor) -> list[Tensor]:
        maps = activations(mels, self.layers, slope=0.2)
        return [*maps, self.last(maps[-1])]
