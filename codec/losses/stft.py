"""Multi-resolution STFT loss (Parallel WaveGAN, arXiv 1910.11480, section 2.2), computed by auraloss.

Spectral convergence, divided by the target's norm and so not symmetric, plus L1 of log magnitudes, averaged over
resolutions. The sizes in conf/ are UniAudio's.
"""

from collections.abc import Sequence

import torch
from auraloss.freq import MultiResolutionSTFTLoss
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.utils.distributed import mean_over_ranks, world_size


class SpectralConvergence(nn.Module):
    """Two magnitude spectra ``[N, bins, F]`` -> |target - estimate| / |target|, norms over the batch of all ranks."""

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        norms = [torch.norm(target - estimate), torch.norm(target)]
        if world_size() > 1:  # the clamp avoids the root of 0, which has no gradient
            norms = [square.clamp(min=1e-20).sqrt() for square in mean_over_ranks([norm.square() for norm in norms])]
        return norms[0] / norms[1]


class MultiResolutionSTFT(nn.Module):
    """Multi-resolution STFT loss: (target, estimate) ``[B, C, T]`` -> scalar, averaged over resolutions.

    Sizes are in samples, one of each per resolution, a window centred in its transform; T must exceed half the longest
    transform. ``floor`` is the least power, for a finite log of silence.
    """

    def __init__(
        self,
        ffts: Sequence[int] = (512, 1024, 2048),
        hops: Sequence[int] = (120, 240, 300),
        windows: Sequence[int] = (480, 960, 1200),
        floor: float = 1e-7,
    ):
        super().__init__()
        if not len(ffts) == len(hops) == len(windows):
            raise ValueError(
                f"ffts, hops and windows must be equally long: {len(ffts)}, {len(hops)} and {len(windows)}"
            )
        self.shortest = max(ffts) // 2 + 1  # reflection of half a transform
        self.stft = MultiResolutionSTFTLoss(list(ffts), list(hops), list(windows), eps=floor)
        for resolution in self.stft.stft_losses:
            resolution.spectralconv = SpectralConvergence()

    @fp32
    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        if target.shape[-1] < self.shortest:
            raise ValueError(
                f"{target.shape[-1]} samples are too short for the multi-resolution STFT loss, which needs at least "
                f"{self.shortest}: train on longer segments or configure shorter transforms"
            )
        return self.stft(estimate, target)  # auraloss has the estimate first
