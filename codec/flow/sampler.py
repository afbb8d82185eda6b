"""ODE sampling with fixed steps and known frames, and windows for long recordings."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.utils.errors import InputError

Field = Callable[[Tensor, float], Tensor]  # (x, t) -> dx/dt
EVALUATIONS = {"euler": 1, "midpoint": 2}  # of the field per step


@dataclass(frozen=True)
class Sampling:
    """Options of ODE sampling; invalid ones raise InputError.

    Args:
        steps: each one pass of the network (midpoint: two), with twice the batch under guidance.
        guidance: w of classifier-free guidance, ``unconditional + w (conditional - unconditional)``: 1 is none, 0
            samples without conditioning and context.
        sampler: ``euler``, or ``midpoint`` (second order).
        progress: called with the completed share, in [0, 1].
    """

    steps: int = 32
    guidance: float = 2.0
    sampler: str = "euler"
    seed: int = 0
    progress: Callable[[float], None] = lambda share: None

    def __post_init__(self):
        if self.sampler not in EVALUATIONS:
            raise InputError(f"sampler={self.sampler}: choose {' or '.join(EVALUATIONS)}")
        if self.steps < 1:
            raise InputError(f"steps={self.steps}: a sampler takes 1 or more")


DEFAULT = Sampling()


def integrate(field: Field, x: Tensor, steps: int, sampler: str, put_back: Field = lambda x, t: x) -> Tensor:
    """ODE solution: x at t = 0 -> x at t = 1.

    Args:
        field: the velocity; never evaluated at t = 1.
        put_back: (x, t) -> x with its known frames at t, before every evaluation of the field and at the end.
    """
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
    """Noise ``[B, C, F]`` from seed, batch index and length alone, whatever the device and the padding."""
    noise = torch.zeros(known.shape)
    for n, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(seed + n)
        noise[n, :, :length] = torch.randn(known.shape[1], length, generator=generator)
    return noise.to(known)


def windows(span: Tensor, size: int) -> list[tuple[int, Tensor]]:
    """Windows of ``size`` frames in which a span ``[F]`` bool of a longer recording is inpainted, one after another.

    A short span is in the middle of its window. A longer one is inpainted from its beginning, each window with at least
    a quarter of its size as context before, where there is as much.

    Returns:
        First frame and span ``[size]`` bool of each window, in order: frames inpainted in one are context of the next.
    """
    left, found = span.clone(), []
    while bool(left.any()):
        first = int(left.nonzero()[0])
        near = left[first : first + max(1, size // 2)].nonzero()
        last = first + int(near[-1])
        begin = min(max(0, (first + last + 1 - size) // 2), len(left) - size)
        found.append((begin, left[begin : begin + size].clone()))
        left[begin : begin + size] = False
    return found
