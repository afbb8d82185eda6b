"""`System`: interface of everything that can be evaluated, speech in and speech out."""

from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor


class System:
    """A codec or a reference condition, called on CPU tensors."""

    sample_rate: int | None = None  # Hz, of the clips that `reconstruct` takes; None: any

    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        """wav ``[1, 1, T]`` in [-1, 1] at ``sample_rate`` Hz -> the same shape."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """JSON facts after the last clip, deterministic; ``kbps``: nominal or measured, None if nothing is coded."""
        return {}


def reconstruct_at(system: System, wav: Tensor, sample_rate: int) -> Tensor:
    """``system.reconstruct`` for clips of any rate: resampled to the system's rate and back, length unchanged."""
    rate = system.sample_rate
    if rate is None or rate == sample_rate:
        return system.reconstruct(wav, sample_rate)
    decoded = resample(system.reconstruct(resample(wav, sample_rate, rate), rate), rate, sample_rate)
    return torch.nn.functional.pad(decoded, (0, wav.shape[-1] - decoded.shape[-1]))  # a negative width cuts


def resample(wav: Tensor, before: int, after: int) -> Tensor:
    """wav ``[1, 1, T]`` at ``before`` Hz -> ``[1, 1, about T * after / before]`` float32 (soxr, high quality)."""
    samples = wav.detach().float().cpu().numpy().reshape(-1)
    return torch.from_numpy(np.ascontiguousarray(soxr.resample(samples, before, after, quality="HQ"))).view(1, 1, -1)
