"""Computation in fp32 inside mixed-precision training."""

import functools

import torch
from torch import Tensor


def fp32(method):
    """Decorator: run ``method(self, *tensors, ...)`` without autocast, floating-point tensor arguments cast to fp32.

    For quantizers and spectra: in bf16 moving averages stop and nearest codes change, and CUDA has no bf16 FFT.
    """

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        up = lambda a: a.float() if isinstance(a, Tensor) and a.is_floating_point() else a  # noqa: E731
        with torch.autocast(tensors[0].device.type, enabled=False):
            return method(self, *map(up, args), **{k: up(v) for k, v in kwargs.items()})

    return wrapped
