"""The contract of what can be evaluated: anything that takes speech and gives it back."""

from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor


class System:
    """A codec, or what stands in its place, on the CPU from outside.

    Attributes:
        sample_rate: in Hz, the rate it works at; None where any will do.
    """

    sample_rate: int | None = None

    def reconstruct(self, wav: Tensor, sample_rate: int) -> Tensor:
        """wav ``[1, 1, T]`` in [-1, 1] at ``sample_rate`` (the system's own, if it has one) -> the same shape."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What is known of it once clips went by: numbers, text, None, lists and dicts of them. Same clips, same facts.

        ``kbps`` is the bitrate in kbit/s, nominal or counted, None where nothing is coded.
        """
        return {}


def reconstruct_at(system: System, wav: Tensor, sample_rate: int) -> Tensor:
    """``system.reconstruct`` for clips of another rate than its own: there and back with soxr, to equal length."""
    rate = system.sample_rate
    if rate is None or rate == sample_rate:
        return system.reconstruct(wav, sample_rate)
    there = resample(wav, sample_rate, rate)
    back = resample(system.reconstruct(there, rate), rate, sample_rate)[..., : wav.shape[-1]]
    return torch.nn.functional.pad(back, (0, wav.shape[-1] - back.shape[-1]))


def resample(wav: Tensor, before: int, after: int) -> Tensor:
    """wav ``[1, 1, T]`` at ``before`` Hz -> ``[1, 1, about T * after / before]`` float32, soxr's high quality."""
    samples = wav.detach().float().cpu().numpy().reshape(-1)
    return torch.from_numpy(np.ascontiguousarray(soxr.resample(samples, before, after, quality="HQ"))).view(1, 1, -1)
