"""Multi-scale mel loss of EnCodec (arXiv 2210.13438, section 3.4; audiocraft's `msspec`) and DAC (arXiv 2306.06546).

Unlike both, the loss is a mean over scales. EnCodec divides the sum over five scales by 10: ``linear=0.5, log=0.5``.
DAC sums its seven scales: ``log=7``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.spectrogram import MelSpectrogram

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}
CONVENTIONS = ("librosa", "torchaudio")


class MultiScaleMel(nn.Module):
    """Multi-scale mel loss: (target, estimate) ``[B, 1, T]`` -> scalar, linear and log distances, averaged over scales.

    Args:
        sample_rate, f_min: in Hz.
        windows: in samples, hop = window / 4.
        mels: bands, one number or one per window.
        linear, log: weights of the two distances.
        distance: of the logs, "l1" or "l2" (mean squared); the linear distance is L1.
        convention: "librosa" (DAC): magnitudes, Slaney filters of unit area, log10(max(mel, floor)), hence no gradient
            below the floor. "torchaudio" (EnCodec): power normalised by the window, HTK filters, log10(mel + floor).
    """

    def __init__(
        self,
        sample_rate: int,
        windows: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048),
        mels: int | Sequence[int] = (5, 10, 20, 40, 80, 160, 320),
        linear: float = 0.0,
        log: float = 1.0,
        distance: str = "l1",
        floor: float = 1e-5,
        f_min: float = 0.0,
        convention: str = "librosa",
    ):
        super().__init__()
        mels = [mels] * len(windows) if isinstance(mels, int) else mels
        if len(mels) != len(windows):
            raise ValueError(f"mels must be one number or one per window: {len(mels)} for {len(windows)} windows")
        if distance not in DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
        if convention not in CONVENTIONS:
            raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
        self.linear, self.log, self.floor = linear, log, floor
        self.distance = DISTANCES[distance]
        self.librosa = convention == "librosa"
        style = {"power": 1, "slaney": True} if self.librosa else {"power": 2, "normalized": True}
        self.scales = nn.ModuleList(
            MelSpectrogram(sample_rate, window, bands, f_min, **style)
            for window, bands in zip(windows, mels, strict=True)
        )

    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        return sum(self._distance(mel(target), mel(estimate)) for mel in self.scales) / len(self.scales)

    def _distance(self, target: Tensor, estimate: Tensor) -> Tensor:
        """Two mel spectrograms ``[B, M, F]`` -> scalar."""
        loss = self.log * self.distance(self._log10(estimate), self._log10(target))
        if self.linear:
            loss = loss + self.linear * F.l1_loss(estimate, target)
        return loss

    def _log10(self, mel: Tensor) -> Tensor:
        return torch.log10(mel.clamp(min=self.floor) if self.librosa else mel + self.floor)
