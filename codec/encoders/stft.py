"""STFT encoder: log magnitudes and phases, then ConvNeXt blocks (Vocos, arXiv 2306.00814, section 3.2) at frame rate.

The mirror of ``codec/decoders/istft.py``; not from a paper (comparison with SEANet: docs/results/tiny.md).
"""

import torch
from torch import Tensor, nn

from codec.encoders.base import Encoder
from codec.layers.convnext import ConvNeXtBlock
from codec.layers.framing import stft_sizes
from codec.layers.precision import fp32

FLOOR = 1e-4  # magnitude, -80 dB re full scale of a bin; phases of smaller ones are noise and tend to 0


class STFTEncoder(Encoder):
    """STFT and ConvNeXt encoder ``[B, 1, T] -> [B, dim, T / hop_length]``.

    Args:
        channels, hidden: width of the ConvNeXt blocks and of the MLPs in them.
        split: STFT frames per latent frame; divides hop_length.
        overlap: STFT windows over each sample, an even number: n_fft = overlap * hop_length / split.
        causal: no look-ahead, in windows and convolutions.
    """

    def __init__(
        self,
        dim: int,
        hop_length: int,
        channels: int = 256,
        hidden: int = 768,
        blocks: int = 4,
        split: int = 2,
        overlap: int = 4,
        kernel: int = 7,
        causal: bool = False,
    ):
        super().__init__()
        self.dim, self.hop_length, self.causal = dim, hop_length, causal
        self.hop, self.n_fft = stft_sizes(hop_length, split, overlap)
        # half the excess of a window over its frame, and half a kernel per block
        self.lookahead = 0 if causal else (self.n_fft - self.hop + 1) // 2 + blocks * (kernel // 2) * self.hop
        reach = self.n_fft - self.hop + blocks * (kernel - 1) * self.hop  # samples before a frame, if causal
        self.context = -(-(reach if causal else self.lookahead) // hop_length)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        self.stem = nn.Conv1d(3 * (self.n_fft // 2 + 1), channels, 1)
        self.norm = nn.LayerNorm(channels)
        self.blocks = nn.Sequential(
            *(ConvNeXtBlock(channels, hidden, kernel, 1 / blocks, causal) for _ in range(blocks))
        )
        self.head = nn.Conv1d(channels, dim, split, split)  # merges the STFT frames of a latent frame

    def forward(self, wav: Tensor) -> Tensor:
        x = self.stem(self._features(wav))
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.blocks(x))

    @fp32
    def _features(self, wav: Tensor) -> Tensor:
        """``[B, 1, T] -> [B, 3 * bins, T / hop]``: log magnitudes, and the phases as cosine and sine."""
        extra = self.n_fft - self.hop
        left = extra if self.causal else extra // 2
        x = nn.functional.pad(wav[:, 0], (left, extra - left))
        spectrum = torch.stft(x, self.n_fft, self.hop, window=self.window, center=False, return_complex=True)
        magnitude = spectrum.abs()
        phase = spectrum / (magnitude + FLOOR)
        return torch.cat([torch.log(magnitude + FLOOR) / 3, phase.real, phase.imag], dim=1)  # / 3: about unit variance
