"""Islands of fp32 inside low-precision training."""

import functools

import torch
from torch import Tensor


def fp32(method):
    """Run ``method(self, *tensors, ...)`` with autocast off and its floating-point tensor arguments in fp32.

    Quantizers and spectral computations need it: an EMA in bf16 stops moving, nearest codes change, and CUDA's autocast
    has no kernel for the STFT.
    """

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        up = lambda a: a.float() if isinstance(a, Tensor) and a.is_floating_point() else a  # noqa: E731
        with torch.autocast(tensors[0].device.type, enabled=False):
            return method(self, *map(up, args), **{k: up(v) for k, v in kwargs.items()})

    return wrapped
