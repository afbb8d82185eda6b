"""Multi-resolution STFT loss (Parallel WaveGAN, arXiv 1910.11480, section 2.2) in the field's library,
auraloss: spectral convergence plus L1 of log magnitudes, averaged over resolutions. Sizes of the YAML files:
UniAudio (arXiv 2310.00704).
"""

from collections.abc import Sequence

import torch
from auraloss.freq import MultiResolutionSTFTLoss
from torch import Tensor, nn

from codec.utils.distributed import mean_over_ranks, world_size


class SpectralConvergence(nn.Module):
    """Two magnitude spectra `[N, bins, F]` -> |target - estimate| / |target|, as the library has it: norms over the
    batch, which is that of all processes.
    """

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        norms = [torch.norm(target - estimate), torch.norm(target)]
        if world_size() > 1:  # the clamp is for the root of 0, which has no gradient
            norms = [square.clamp(min=1e-20).sqrt() for square in mean_over_ranks([norm.square() for norm in norms])]
        return norms[0] / norms[1]


class MultiResolutionSTFT(nn.Module):
    """(target, estimate) `[B, C, T]` -> scalar; not symmetric: one part is divided by the target's norm.

    ffts, hops, windows: in samples, one of each per resolution; a window is centred in its transform.
    floor: smallest power, which keeps silence finite.
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
                f"ffts, hops and windows must be equally long: {len(ffts)}, {len(hops)} and {len(windows)}."
            )
        self.shortest = max(ffts) // 2 + 1  # reflection of half a transform
        self.stft = MultiResolutionSTFTLoss(list(ffts), list(hops), list(windows), eps=floor)
        for resolution in self.stft.stft_losses:
            resolution.spectralconv = SpectralConvergence()

    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        """Raises ValueError where T is not longer than half the longest transform."""
        if target.shape[-1] < self.shortest:
            raise ValueError(
                f"{target.shape[-1]} samples are too short for the multi-resolution STFT loss, which needs "
                f"at least {self.shortest}: train on longer segments or configure shorter transforms."
            )
        with torch.autocast(target.device.type, enabled=False):
            return self.stft(estimate.float(), target.float())  # auraloss takes the estimate first
