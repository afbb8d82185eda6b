"""The device to compute on."""

import torch

from codec.utils.errors import InputError


def usable_device(choice: str) -> str:
    """The device of this name; ``auto`` is the GPU where there is one.

    Raises:
        InputError: if it cannot be used here.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if choice == "auto" else str(choice)
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={choice} cannot be used: {str(error).splitlines()[0]}") from error
    return device
