"""What every system that fills in spans of latents is held against: a ceiling, a floor, and the spans themselves."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from codec.evaluation.judges.phone_edits import phone_segments
from codec.utils.errors import InputError

GRID = 0.08  # seconds: whole frames at 12.5, 25, 50 and 75 Hz, so that codecs of all these rates get the same spans
SHORTEST, LONGEST = 0.32, 1.52  # seconds, multiples of GRID
CONTEXT = 0.32  # seconds that stay known before and after


def copy_synthesis(known: Tensor, span: Tensor) -> Tensor:
    """The ceiling: latents ``[B, C, F]`` as they are, to be decoded; ``span`` is not needed. What it loses, the codec
    loses."""
    return known


def interpolation(known: Tensor, span: Tensor) -> Tensor:
    """The floor: straight lines across the spans, between the known frames on either side; it knows no content.

    Args:
        known: latents ``[B, C, F]``; what lies in the span is not read.
        span: ``[B, F]`` bool, true where latents are to be filled in; where it reaches an end of the recording, the
            nearest known frame goes on.

    Returns:
        ``[B, C, F]``, equal to ``known`` outside of the span.

    Raises:
        InputError: if nothing of a recording is known, or the shapes do not fit.
    """
    if known.ndim != 3 or span.shape != (known.shape[0], known.shape[2]):
        raise InputError(f"latents [B, C, F] need a span [B, F]; here are {list(known.shape)} and {list(span.shape)}")
    if not (~span).any(-1).all():
        raise InputError("the span covers a whole recording: there is nothing to interpolate between")
    filled = known.clone()
    for latents, inside in zip(filled, span, strict=True):
        frames = torch.arange(len(inside), device=known.device)
        there = frames[~inside]
        after = torch.searchsorted(there, frames[inside])
        right, left = there[after.clamp(max=len(there) - 1)], there[(after - 1).clamp(min=0)]
        share = (frames[inside] - left) / (right - left).clamp(min=1)
        share = torch.where(right > left, share.clamp(0, 1), 0.0).to(known.dtype)
        latents[:, inside] = latents[:, left] * (1 - share) + latents[:, right] * share
    return filled


def draw_span(phones: Sequence[tuple[str, float]], seconds: float, seed: int, number: int) -> tuple[float, float]:
    """(start, end) in seconds of the span to fill in, in recording ``number``: a function of the arguments alone.

    Its length is uniform between 0.32 and 1.52 s, its place uniform where 0.32 s stay known on either side, both on a
    grid of 0.08 s. Drawn again while it holds no phone's middle.

    Raises:
        InputError: if the recording is too short, or has no phone to be judged by.
    """
    room = int((seconds - 2 * CONTEXT) / GRID + 1e-6)  # steps of the grid
    shortest, longest = round(SHORTEST / GRID), round(LONGEST / GRID)
    if room < shortest:
        needed = SHORTEST + 2 * CONTEXT
        raise InputError(f"a recording of {seconds:.2f} s has no room for a span: {needed:.2f} s are needed")
    middles = [phone.middle for phone in phone_segments(phones, seconds)]
    rng = np.random.default_rng((seed, number))
    for _ in range(1000):
        length = int(rng.integers(shortest, min(longest, room) + 1))
        start = round(CONTEXT / GRID) + int(rng.integers(0, room - length + 1))
        span = start * GRID, (start + length) * GRID
        if any(span[0] <= middle < span[1] for middle in middles):
            return span
    raise InputError("a recording has no phone where a span could be: choose one whose phones are known")


def rest_after(start: float, phones: Sequence[tuple[str, float]], seconds: float) -> tuple[float, float]:
    """(start, end) in seconds of all that follows ``start``: a recording is gone on with, as zero-shot speech synthesis
    is measured ("VALL-E-continual", arXiv 2301.02111, section 5).

    Raises:
        InputError: if next to nothing follows, or no phone to be judged by.
    """
    if seconds - start < SHORTEST:
        raise InputError(f"a recording of {seconds:.2f} s has less than {SHORTEST} s after {start:g} s")
    if not any(phone.middle >= start for phone in phone_segments(phones, seconds)):
        raise InputError(f"a recording has no phone after {start:g} s: choose one whose phones are known")
    return start, seconds


def frames_of(span: tuple[float, float], frames: int, frame_rate: float) -> Tensor:
    """``span`` in seconds -> ``[F]`` bool for ``frames`` = F latents at ``frame_rate`` Hz: those that overlap it."""
    start, end = (round(time * frame_rate, 6) for time in span)  # else 1.2 s at 12.5 Hz are a little over 15 frames
    number = torch.arange(frames)
    return (number + 1 > start) & (number < end)
