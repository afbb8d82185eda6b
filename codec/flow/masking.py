"""Span masks of training examples, as in Voicebox (arXiv 2306.15687), and prompts that do not overlap them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spans:
    """Distribution of the spans to inpaint: several short ones, one long one, or all frames.

    Args:
        seconds: shortest and longest short span.
        every: seconds of an example per short span; there is at least one.
        long: share of the examples with one span of half to all of the frames.
        all: share of the examples without any context.
    """

    seconds: tuple[float, float] = (0.3, 1.5)
    every: float = 4.0
    long: float = 0.4
    all: float = 0.1

    def __post_init__(self):
        if min(self.long, self.all) < 0 or self.long + self.all > 1:
            raise ValueError(f"spans: long={self.long} and all={self.all} are shares, and together 1 at most")
        if not (0 < self.seconds[0] <= self.seconds[1] and self.every > 0):
            raise ValueError(
                f"spans: seconds={list(self.seconds)} and every={self.every} are lengths above 0, in order"
            )

    def draw(self, frames: int, frame_rate: float, rng: np.random.Generator) -> np.ndarray:
        """Random mask ``[frames]`` bool of frames to inpaint, at least one of them true."""
        span, kind = np.zeros(frames, bool), rng.random()
        if kind < self.all:
            return ~span
        if kind < self.all + self.long:
            lengths = [round(rng.uniform(0.5, 1.0) * frames)]
        else:
            count = max(1, int(frames / frame_rate / self.every))
            lengths = [round(rng.uniform(*self.seconds) * frame_rate) for _ in range(count)]
        for length in lengths:
            length = min(max(1, length), frames)
            first = int(rng.integers(frames - length + 1))
            span[first : first + length] = True
        return span


def draw_prompt(
    span: np.ndarray, first: int, total: int, wanted: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, int]:
    """Random part of a recording that does not overlap the span to inpaint.

    Args:
        span: ``[F]`` bool, of an example from frame ``first`` of a recording of ``total`` frames, 2 or more.
        wanted: frames of the prompt; there may be fewer.

    Returns:
        The span, and the prompt's first and end frame. If the longest free run is shorter than both ``wanted`` and a
            quarter of the recording, one end of the example is removed from the span.
    """
    least = min(wanted, max(1, total // 4))
    free = np.ones(total, bool)
    free[first : first + len(span)] = ~span
    begins, ends = runs(free)
    longest = int((ends - begins).max(initial=0))
    if longest < least:
        begin = first + (len(span) - least if rng.random() < 0.5 else 0)
        span = span.copy()
        span[begin - first : begin - first + least] = False
        return span, begin, begin + least
    length = min(wanted, longest)
    counts = np.convolve(free, np.ones(length, int), "valid")
    begin = int(rng.choice(np.flatnonzero(counts == length)))
    return span, begin, begin + length


def runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and end positions of each run of true in ``mask`` ``[F]`` bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return edges[::2], edges[1::2]
