"""Multi-scale mel loss as in EnCodec (arXiv 2210.13438, section 3.4; audiocraft's `msspec`) and DAC (arXiv
2306.06546).

Where we differ: both are means over the scales here. EnCodec divides the sum over five scales by 10:
`linear=0.5, log=0.5`. DAC sums its seven scales: `log=7`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.losses.mel_spectrogram import MelSpectrogram

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}
CONVENTIONS = ("librosa", "torchaudio")


class MultiScaleMel(nn.Module):
    """(target, estimate) `[B, 1, T]` -> scalar: a linear and a log distance of mels, averaged over scales.

    linear, log: the weights of the two distances.
    sample_rate, f_min in Hz; windows in samples, hop a quarter; mels: bands, one number or one per window.
    distance: "l1" or "l2" (mean squared), of the logs; the linear part is always L1.
    convention: "librosa" is DAC's: magnitudes, Slaney filters of unit area, log10(max(mel, floor)), which
    gives no gradient below the floor; "torchaudio" is EnCodec's: power normalised by the window, HTK filters,
    log10(mel + floor).
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
            raise ValueError(f"mels must be one number or one per window: {len(mels)} for {len(windows)} windows.")
        if distance not in DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}.")
        if convention not in CONVENTIONS:
            raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}.")
        self.linear, self.log, self.floor = linear, log, floor
        self.distance = DISTANCES[distance]
        self.librosa = convention == "librosa"
        style = {"power": 1, "slaney": True} if self.librosa else {"power": 2, "normalized": True}
        self.scales = nn.ModuleList(
            MelSpectrogram(sample_rate, window, bands, f_min, **style)
            for window, bands in zip(windows, mels, strict=True)
        )

    def forward(self, target: Tensor, estimate: Tensor) -> Tensor:
        return sum(self.compare(mel(target), mel(estimate)) for mel in self.scales) / len(self.scales)

    def compare(self, target: Tensor, estimate: Tensor) -> Tensor:
        """Two mel spectrograms `[B, M, F]` -> scalar."""
        loss = self.log * self.distance(self.log10(estimate), self.log10(target))
        if self.linear:
            loss = loss + self.linear * F.l1_loss(estimate, target)
        return loss

    def log10(self, mel: Tensor) -> Tensor:
        return torch.log10(mel.clamp(min=self.floor) if self.librosa else mel + self.floor)
