"""Inverse-STFT decoder (Vocos, arXiv 2306.00814, section 3): ConvNeXt blocks at frame rate predict an STFT.

Differences from Vocos: F frames give exactly F * hop samples with the same overlap everywhere, and a latent frame may
be split into several STFT frames (``split``) for time resolution at equal cost per block.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from codec.decoders.base import Decoder
from codec.layers.convnext import ConvNeXtBlock
from codec.layers.framing import stft_sizes
from codec.layers.precision import fp32


class ISTFTDecoder(Decoder):
    """ConvNeXt and inverse-STFT decoder ``[B, dim, F] -> [B, 1, F * hop_length]``.

    Args:
        channels, hidden: width of the ConvNeXt blocks and of the MLPs in them.
        split: STFT frames per latent frame; divides hop_length.
        overlap: STFT windows over each sample, an even number: n_fft = overlap * hop_length / split.
        causal: no look-ahead in convolutions; the overlapping windows still have theirs.
    """

    def __init__(
        self,
        dim: int,
        hop_length: int,
        channels: int = 384,
        hidden: int = 1152,
        blocks: int = 6,
        split: int = 2,
        overlap: int = 4,
        kernel: int = 7,
        causal: bool = False,
    ):
        super().__init__()
        self.dim, self.hop_length, self.split, self.causal = dim, hop_length, split, causal
        self.hop, self.n_fft = stft_sizes(hop_length, split, overlap)
        self.lookahead = max(0, (self.n_fft - self.hop) // 2 - 1)  # of overlapping windows, whose first weight is 0
        if not causal:  # half a kernel in the stem and in each block
            self.lookahead += (kernel - 1) // 2 * hop_length + blocks * (kernel // 2) * self.hop
        reach = self.n_fft - self.hop + blocks * (kernel - 1) * self.hop  # samples before a frame, if causal
        self.context = kernel - 1 + -(-reach // hop_length)
        self.kernel = kernel
        self.stem = nn.Conv1d(dim, channels * split, kernel)
        self.norm_in = nn.LayerNorm(channels)
        self.blocks = nn.Sequential(
            *(ConvNeXtBlock(channels, hidden, kernel, 1 / blocks, causal) for _ in range(blocks))
        )
        self.norm_out = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, self.n_fft + 2)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        pad = (self.kernel - 1, 0) if self.causal else (self.kernel // 2, (self.kernel - 1) // 2)
        x = self.stem(nn.functional.pad(latents, pad))
        x = rearrange(x, "b (c s) f -> b c (f s)", s=self.split)
        x = self.norm_in(x.transpose(1, 2)).transpose(1, 2)
        x = self.blocks(x)
        return self._synthesise(self.head(self.norm_out(x.transpose(1, 2))))

    @fp32
    def _synthesise(self, x: Tensor) -> Tensor:
        """``[B, F * split, n_fft + 2]``, log magnitudes and phases -> ``[B, 1, F * hop_length]``."""
        log_magnitude, phase = x.chunk(2, dim=-1)
        magnitude = torch.exp(log_magnitude.clamp(max=6.0))  # bounds overshoots early in training
        frames = torch.fft.irfft(torch.polar(magnitude, phase), self.n_fft) * self.window  # [B, F', n_fft]
        count = frames.shape[1]
        length = (count - 1) * self.hop + self.n_fft
        fold = dict(output_size=(1, length), kernel_size=(1, self.n_fft), stride=(1, self.hop))
        wav = nn.functional.fold(frames.transpose(1, 2), **fold)[:, 0, 0]  # [B, length]
        squares = self.window.square().expand(1, count, -1).transpose(1, 2)
        envelope = nn.functional.fold(squares, **fold)[0, 0, 0]
        start = (self.n_fft - self.hop) // 2
        end = start + count * self.hop
        return (wav[:, start:end] / envelope[start:end])[:, None]
