"""Multi-frequency discriminator of UniAudio (arXiv 2310.00704): linear and log mel spectrograms of several resolutions.

Written from the description of uniaudio666/UniAudio @ bbc1498 and yangdongchao/RSTnet @ 5f01e1f. As there, feature maps
are after the activation, mel bands are as many as bins, and filter weights are >= 1e-6 (finite log of empty bands).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.discriminators.base import Maps, feature_maps
from codec.layers.precision import fp32
from codec.layers.spectrogram import Spectrogram, mel_filters


class MultiFrequency(nn.Module):
    """Multi-frequency discriminator: wav ``[B, 1, T]`` -> 7 maps ``[B, C, bands, F]`` per hop, T >= 8 * max(hops).

    Hops are in samples, windows 4 hops long; ``hidden`` has the width of the widest layer per hop, a multiple of 32.
    """

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
                f"hidden={list(hidden)}"
            )
        if bad := [width for width in hidden if width % 32]:
            raise ValueError(f"hidden widths must be multiples of 32 (the first layer has hidden / 32), got {bad}")
        self.shortest = 8 * max(hops)  # the third stride of 2 must leave two frames to reflect
        self.spectra = nn.ModuleList(MelMagnitudes(sample_rate, hop) for hop in hops)
        self.critics = nn.ModuleList(MelDiscriminator(width) for width in hidden)

    def forward(self, wav: Tensor) -> Maps:
        if wav.shape[-1] < self.shortest:
            raise ValueError(
                f"a waveform of {wav.shape[-1]} samples is too short for the multi-frequency discriminator, which "
                f"needs at least {self.shortest}: train on longer segments or configure smaller hops"
            )
        return [critic(mels(wav)) for mels, critic in zip(self.spectra, self.critics, strict=True)]


class MelMagnitudes(nn.Module):
    """wav ``[B, 1, T]`` -> fp32 ``[B, 2, 2 * hop + 1, F]``: mel magnitude, and its dB, [-80, 20] mapped to [0, 1]."""

    def __init__(self, sample_rate: int, hop: int):
        super().__init__()
        window, bins = 4 * hop, 2 * hop + 1
        self.spectrogram = Spectrogram(window, hop, pad=window // 2, scale=window**-0.5)
        filters = mel_filters(sample_rate, bins, bins).clamp(min=1e-6)
        self.register_buffer("filters", filters.contiguous(), persistent=False)  # [bands, bins]

    @fp32
    def forward(self, wav: Tensor) -> Tensor:
        power = torch.view_as_real(self.spectrogram(wav)).square().sum(-1)
        mel = self.filters @ power.clamp(min=1e-7).sqrt()  # [B, bins, F] -> [B, bands, F]
        log = ((20 * mel.log10() - 20 + 100) / 100).clamp(0, 1)
        return torch.stack([mel, log], dim=1)  # [B, 2, bands, F]


class MelDiscriminator(nn.Module):
    """One resolution: seven 3x3 convolutions of width / 32 to width channels, every other one with stride 2."""

    def __init__(self, width: int):
        super().__init__()
        widths = [2, *(width // divisor for divisor in (32, 16, 8, 4, 2, 1)), 1]
        convs = [
            weight_norm(nn.Conv2d(widths[i], widths[i + 1], 3, stride=1 + i % 2, padding=1, padding_mode="reflect"))
            for i in range(7)
        ]
        self.layers, self.last = nn.ModuleList(convs[:-1]), convs[-1]

    def forward(self, mels: Tensor) -> list[Tensor]:
        return feature_maps(mels, self.layers, 0.2, self.last)
