"""Spans of held-out recordings that systems inpaint: the same, in seconds, for every codec."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.evaluation.evaluate import clip_name
from codec.evaluation.judges.phone_edits import phone_segments
from codec.utils.errors import InputError

GRID = 0.08  # seconds: whole frames at 12.5, 25, 50 and 75 Hz, so that codecs of all these rates get the same spans
SHORTEST, LONGEST = 0.32, 1.52  # seconds, multiples of GRID
CONTEXT = 0.32  # seconds that stay known before and after


@dataclass(frozen=True)
class Recording:
    """A recording and the span of it that systems inpaint."""

    clip: str
    speaker: str
    wav: np.ndarray  # [T] in [-1, 1]
    phones: Sequence[tuple[str, float]]  # (symbol, start in s)
    span: tuple[float, float]  # (start, end) in s
    text: str = ""  # of the whole recording, if known


def with_spans(
    clips: Iterable[Mapping[str, Any]],
    sample_rate: int,
    seed: int = 0,
    longest: float = math.inf,
    most: int | None = None,
    after: float | None = None,
) -> tuple[list[Recording], list[tuple[str, str]]]:
    """Held-out items at ``sample_rate`` Hz -> recordings with a span each, and (file, reason) of those without.

    Recordings longer than ``longest`` seconds are excluded; after ``most`` recordings no more are read. With ``after``
    the span is all that follows that many seconds, instead of a random one.
    """
    found, skipped, taken = [], [], set()
    for number, item in enumerate(clips):
        wav, name = item["wav"][0].numpy(), clip_name(item, number, taken)
        taken.add(name)
        seconds = len(wav) / sample_rate
        try:
            if seconds > longest:
                raise InputError(f"a recording of {seconds:.2f} s is longer than {longest:g} s")
            phones = item["phones"]
            span = random_span(phones, seconds, seed, number) if after is None else rest_after(after, phones, seconds)
        except InputError as error:
            skipped.append((name, str(error)))
        else:
            found.append(Recording(name, item["speaker"], wav, item["phones"], span, item["text"]))
        if len(found) == most:
            break
    return found, skipped


def random_span(phones: Sequence[tuple[str, float]], seconds: float, seed: int, number: int) -> tuple[float, float]:
    """Random span (start, end) in seconds of recording ``number``: a function of the arguments alone.

    Its length is uniform between 0.32 and 1.52 s, its place uniform with 0.32 s known on either side, both on a grid of
    0.08 s, among the spans that contain a phone's middle. Raises InputError if the recording is too short or has no
    phone.
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
    """(start, end) in seconds of all that follows ``start``: "VALL-E-continual" (arXiv 2301.02111, section 5).

    Raises InputError if less than 0.32 s follow, or no phone.
    """
    if seconds - start < SHORTEST:
        raise InputError(f"a recording of {seconds:.2f} s has less than {SHORTEST} s after {start:g} s")
    if not any(phone.middle >= start for phone in phone_segments(phones, seconds)):
        raise InputError(f"a recording has no phone after {start:g} s: choose one whose phones are known")
    return start, seconds


def frame_mask(span: tuple[float, float], frames: int, frame_rate: float) -> Tensor:
    """Mask ``[F]``, bool, of ``frames`` = F latents at ``frame_rate`` Hz that overlap ``span``, in seconds."""
    start, end = (round(time * frame_rate, 6) for time in span)  # else 1.2 s at 12.5 Hz are a little over 15 frames
    index = torch.arange(frames)
    return (index + 1 > start) & (index < end)
