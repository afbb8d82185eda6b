"""The hidden reference and the low anchor of MUSHRA (ITU-R BS.1534-3) as systems."""

from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor

from codec.evaluation.baselines.base import System

TRANSITION = 1 / 7  # width of the transition band over the cutoff: 3.5 to 4 kHz
ATTENUATION = 60.0  # dB, of the stop band; it bounds the ripple to 0.01 dB


class Identity(System):
    """Hidden reference: returns the clip itself, the bound of metrics that compare with it."""

    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        return wav.clone()

    def facts(self) -> dict[str, Any]:
        return {"kbps": None}


class LowPass(System):
    """Low-pass filter: at 3.5 kHz the low anchor of ITU-R BS.1534-3, at 7 kHz the mid anchor.

    Zero-phase FIR, Kaiser window: flat within 0.1 dB up to ``cutoff`` (Hz), 60 dB down from 8/7 of it, which must be at
    most half the sample rate (ValueError).
    """

    def __init__(self, cutoff: float = 3500.0):
        if not cutoff > 0:
            raise ValueError(f"a low-pass needs a cutoff above 0 Hz, and cutoff={cutoff:g}")
        self.cutoff = float(cutoff)

    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        samples = wav.detach().double().cpu().numpy().reshape(-1)
        filtered = scipy.signal.oaconvolve(samples, self._taps(sample_rate), mode="same")
        return torch.from_numpy(filtered.astype(np.float32)).view(1, 1, -1)

    def facts(self) -> dict[str, Any]:
        return {"kbps": None, "cutoff_hz": self.cutoff}

    def _taps(self, sample_rate: int) -> np.ndarray:
        width = self.cutoff * TRANSITION
        if self.cutoff + width > sample_rate / 2:
            lowest = 2 * (self.cutoff + width)
            raise ValueError(
                f"a low-pass of cutoff={self.cutoff:g} Hz needs clips of {lowest:g} Hz or more, not {sample_rate} Hz: "
                "lower the cutoff"
            )
        taps, beta = scipy.signal.kaiserord(ATTENUATION, width / (sample_rate / 2))
        return scipy.signal.firwin(taps | 1, self.cutoff + width / 2, window=("kaiser", beta), fs=sample_rate)
