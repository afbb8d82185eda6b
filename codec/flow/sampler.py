"""From noise to latents: fixed steps along a velocity, with what is known put back in its place at every step."""

from collections.abc import Callable

import torch
from torch import Tensor

from codec.utils.errors import InputError

Field = Callable[[Tensor, float], Tensor]  # (x, t) -> dx/dt
EVALUATIONS = {"euler": 1, "midpoint": 2}  # of the field, for a step


def integrate(field: Field, x: Tensor, steps: int, sampler: str = "euler", put_back: Field = lambda x, t: x) -> Tensor:
    """x at t = 0 -> x at t = 1.

    Args:
        field: the velocity; never asked for at t = 1.
        sampler: ``euler``, or ``midpoint``, which asks twice in a step and errs by its square.
        put_back: (x, t) -> x with what is known of it at t; the field is shown nothing else, and it has the last word.

    Raises:
        InputError: if there is no such sampler, or no step.
    """
    if sampler not in EVALUATIONS:
        raise InputError(f"sampler={sampler}: choose {' or '.join(EVALUATIONS)}")
    if steps < 1:
        raise InputError(f"steps={steps}: a sampler takes 1 or more")
    h = 1 / steps
    for n in range(steps):
        t = n * h
        x = put_back(x, t)
        velocity = field(x, t)
        if sampler == "midpoint":
            middle = t + h / 2
            velocity = field(put_back(x + h / 2 * velocity, middle), middle)
        x = x + h * velocity
    return put_back(x, 1.0)


def noise_like(known: Tensor, lengths: list[int], seed: int) -> Tensor:
    """Noise ``[B, C, F]`` for examples of so many frames, the same on every device and however they are padded. An
    example's hangs on the seed and its place in the batch."""
    noise = torch.zeros(known.shape)
    for n, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(seed + n)
        noise[n, :, :length] = torch.randn(known.shape[1], length, generator=generator)
    return noise.to(known)


def windows(span: Tensor, size: int) -> list[tuple[int, Tensor]]:
    """Where to look at a long file, piece by piece, to fill in all of a span.

    Args:
        span: ``[F]`` bool, F > size.
        size: frames that the model looks at.

    Returns:
        (first frame, span ``[size]`` bool within) of each piece, in order: what a piece has filled in is known to the
        next. A short span stands in the middle of its piece; one that is too long for that is filled in from its
        beginning, each piece having at least a quarter of its size behind it, where there is as much.
    """
    left, found = span.clone(), []
    while bool(left.any()):
        first = int(left.nonzero()[0])
        near = left[first : first + size // 2].nonzero()
        last = first + int(near[-1]) if len(near) else first
        begin = min(max(0, (first + last + 1 - size) // 2), len(left) - size)
        found.append((begin, left[begin : begin + size].clone()))
        left[begin : begin + size] = False
    return found
