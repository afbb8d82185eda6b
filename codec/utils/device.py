"""Selection of the compute device."""

import os

import torch

from codec.utils.errors import InputError


def usable_device(choice: str = "auto") -> str:
    """Name of the device ``choice`` (``cpu``, ``cuda``, ``cuda:1``, ...); for ``auto`` a GPU if there is one (under
    torchrun that of ``LOCAL_RANK``), else the CPU. Raises InputError if it cannot compute."""
    device = str(choice)
    if device == "auto":
        rank = os.environ.get("LOCAL_RANK")
        device = ("cuda" if rank is None else f"cuda:{rank}") if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # `item` fails on the device "meta", which computes nothing
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"the device {choice} cannot be used: {str(error).splitlines()[0]}") from error
    return device
