"""The two ends of a listening test's scale: nothing lost, and the band of a telephone."""

from typing import Any

import numpy as np
import scipy.signal
import torch
from torch import Tensor

from codec.evaluation.baselines.base import System

TRANSITION = 1 / 7  # of the cutoff: 3.5 to 4 kHz
ATTENUATION = 60.0  # dB, also what bounds the ripple, at 0.01 dB


class Identity(System):
    """The clip itself: the hidden reference of MUSHRA, and the best that any metric can say."""

    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        return wav.clone()

    def facts(self) -> dict[str, Any]:
        return {"kbps": None}


class LowPass(System):
    """What is above ``cutoff`` Hz removed; at 3.5 kHz the low anchor of MUSHRA (ITU-R BS.1534-3), at 7 kHz the other.

    A symmetric FIR filter with Kaiser's window (Kaiser 1974), centred on the sample, so that it delays nothing: within
    0.1 dB up to the cutoff, 60 dB down from 8/7 of it (4 kHz for 3.5). Silence is assumed around the clip.

    Raises:
        ValueError: if ``cutoff`` is not above 0 Hz; from ``reconstruct``, if 8/7 of it is above half the sample rate.
    """

    def __init__(self, cutoff: float = 3500.0):
        if not cutoff > 0:
            raise ValueError(f"a low-pass needs a cutoff above 0 Hz, and cutoff={cutoff:g}")
        self.cutoff = float(cutoff)

    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        samples = wav.detach().double().cpu().numpy().reshape(-1)
        filtered = scipy.signal.oaconvolve(samples, self._filter(sample_rate), mode="same")
        return torch.from_numpy(filtered.astype(np.float32)).view(1, 1, -1)

    def facts(self) -> dict[str, Any]:
        return {"kbps": None, "cutoff_hz": self.cutoff}

    def _filter(self, sample_rate: int) -> np.ndarray:
        width = self.cutoff * TRANSITION
        if self.cutoff + width > sample_rate / 2:
            raise ValueError(
                f"a low-pass of cutoff={self.cutoff:g} Hz needs clips of {2 * (self.cutoff + width):g} Hz or more, and "
                f"these have {sample_rate} Hz: lower the cutoff"
            )
        taps, beta = scipy.signal.kaiserord(ATTENUATION, width / (sample_rate / 2))
        return scipy.signal.firwin(taps | 1, self.cutoff + width / 2, window=("kaiser", beta), fs=sample_rate)
