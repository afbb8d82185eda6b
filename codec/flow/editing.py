"""What is to be filled in, from what a user says in seconds and words: frames, and times of phones."""

import math
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np

from codec.data.espeak import Pronunciation
from codec.utils.errors import InputError

Phones = Sequence[tuple[str, float]]
PAUSE = "_"
ALIKE = 0.6  # share of the phones of a text that must be among those of its recording, in order
ROUNDING = 1e-6  # of a frame: 1.2 s at 12.5 Hz are 15 frames


def span_frames(spans: Sequence[tuple[float, float]], seconds: float, frame_rate: float) -> list[tuple[int, int]]:
    """Spans in seconds -> the frames (first, end) that they touch, of a recording of so many seconds.

    Raises:
        InputError: if a span is reversed, outside of the recording, or shorter than a frame.
    """
    found = []
    for start, end in spans:
        named = f"the span from {start:g} to {end:g} s"
        if end <= start:
            raise InputError(f"{named} ends before it begins: give its start, then its end")
        if start < 0 or end > seconds + ROUNDING / frame_rate:
            raise InputError(f"{named} is not within the recording, which is {seconds:.2f} s long")
        if (end - start) * frame_rate < 1 - ROUNDING:
            raise InputError(f"{named} is shorter than a latent frame, which is {1 / frame_rate:g} s: lengthen it")
        found.append((math.floor(start * frame_rate + ROUNDING), math.ceil(end * frame_rate - ROUNDING)))
    return found


def longest_known(span: np.ndarray, most: int) -> tuple[int, int]:
    """The longest piece of which nothing is to be filled in, from its first frame, ``most`` frames at most; (0, 0) if
    there is none. ``span`` ``[F]`` bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[True], span, [True]]).astype(int)))
    if not len(edges):
        return 0, 0
    begins, ends = edges[0::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int(min(ends[longest], begins[longest] + most))


def stretched(phones: Phones, factor: float) -> list[tuple[str, float]]:
    """The same, ``factor`` times as slow."""
    return [(symbol, start * factor) for symbol, start in phones]


class Edit(NamedTuple):
    """Words of a recording that are replaced."""

    text: str
    """What is said afterwards."""
    phones: list[tuple[str, float]]
    """And when."""
    first: int
    """The first frame that goes."""
    end: int
    """The first that stays after it."""
    frames: int
    """How many come in between."""


class Replacement(NamedTuple):
    """Words to be replaced, in a text: letters ``begin`` to ``end``, the words ``first`` to ``last`` of it."""

    begin: int
    end: int
    first: int
    last: int


def find_words(text: str, words: str) -> Replacement:
    """Where in a text the words stand; case and punctuation do not matter.

    Raises:
        InputError: if they are none, or do not stand there exactly once.
    """
    wanted = [word.group().casefold() for word in _words(words)]
    if not wanted:
        raise InputError("there are no words to be replaced: name some of the text")
    there = list(_words(text))
    spelt = [word.group().casefold() for word in there]
    places = [n for n in range(len(there)) if spelt[n : n + len(wanted)] == wanted]
    if len(places) != 1:
        how = f"{len(places)} times in the text: name more of the words around" if places else "not in the text"
        raise InputError(f"{words!r} stands {how}")
    first, last = places[0], places[0] + len(wanted)
    return Replacement(there[first].start(), there[last - 1].end(), first, last)


def plan_edit(
    text: str,
    phones: Phones,
    place: Replacement,
    new: str,
    before: Pronunciation,
    after: Pronunciation,
    seconds: float,
    rate: float,
) -> Edit:
    """How words are replaced in a recording whose phones are known with their times.

    How long the new words last is what eSpeak NG says, at the pace of the recording; all that follows is moved by whole
    frames.

    Args:
        text, phones: of the recording of so many ``seconds``.
        place: of the words that go, from :func:`find_words`.
        new: the words that come.
        before, after: how the text sounds, with the old words and with the new.
        rate: frames per second.

    Raises:
        InputError: if there are no new words, the times of phones are not known, or the phones are not of this text.
    """
    coming = len(list(_words(new)))
    if not coming:
        raise InputError("there are no new words: say what is to be said in place of the old")
    if not phones or any(start is None for _, start in phones):
        raise InputError("words can be replaced where it is known when each phone starts: give phones with their times")
    there = Sounding([symbol for symbol, _ in phones], [start for _, start in phones] + [seconds])
    old, edited = Sounding.of(before), Sounding.of(after)
    edited_text = text[: place.begin] + new + text[place.end :]
    corners = _corners(old.symbols, there.symbols)
    a, b = (round(float(np.interp(n, *corners))) for n in old.within(text, before, place.first, place.last))
    c, d = edited.within(edited_text, after, place.first, place.first + coming)
    if b <= a:
        raise InputError(f"the phones given have none where the text says {text[place.begin : place.end]!r}")
    start, end = there.times[a], there.times[b]
    pace = there.lasts / old.lasts if there.lasts > 0 and old.lasts > 0 else 1.0
    lasts = edited.times[d] - edited.times[c]  # of the new words, as eSpeak says them
    longer = math.ceil((pace * lasts - (end - start)) * rate - ROUNDING)  # frames; below 0 if there will be fewer
    first = math.floor(start * rate + ROUNDING)
    last = min(math.ceil(end * rate - ROUNDING), math.ceil(seconds * rate - ROUNDING))
    frames = max(1, last - first + longer)
    shift = (frames - (last - first)) / rate
    factor = (end + shift - start) / lasts
    said = [(edited.symbols[n], start + factor * (edited.times[n] - edited.times[c])) for n in range(c, d)]
    moved = [*phones[:a], *said, *((symbol, time + shift) for symbol, time in phones[b:])]
    return Edit(edited_text, moved, first, last, frames)


class Sounding(NamedTuple):
    """Phones ``symbols`` and their starts ``times``, one more than there are: the last is the end."""

    symbols: list[str]
    times: list[float]

    @classmethod
    def of(cls, said: Pronunciation) -> "Sounding":
        return cls([symbol for symbol, _ in said.phones], [start for _, start in said.phones] + [said.seconds])

    @property
    def lasts(self) -> float:
        """Seconds from the first phone to the last."""
        return self.times[-2] - self.times[0]

    def within(self, text: str, said: Pronunciation, first: int, last: int) -> tuple[int, int]:
        """The phones (first, end) of the words ``first`` to ``last`` of a text, without a pause after them.

        Raises:
            InputError: if a word is said as one with its neighbour, so that nobody knows which phones are whose.
        """
        words, starts = list(_words(text)), {}
        for letter, time in said.words:
            number = next((n for n, word in enumerate(words) if word.end() > letter), len(words))
            starts.setdefault(number, time)
        if first not in starts or (last < len(words) and last not in starts):
            at = last if first in starts else first
            pair = text[words[at - 1].start() : words[at].end()] if at else words[0].group()
            raise InputError(f"{pair!r} is said in one breath: name these words together, old and new")
        from_, until = starts[first], starts.get(last, said.seconds)
        numbers = [n for n, time in enumerate(self.times[:-1]) if from_ <= time < until]
        while numbers and self.symbols[numbers[-1]] == PAUSE:
            numbers.pop()
        if not numbers:
            raise InputError(f"{text[words[first].start() : words[last - 1].end()]!r} is not heard when it is said")
        return numbers[0], numbers[-1] + 1


def _words(text: str) -> Iterator[re.Match]:
    return re.finditer(r"\w+", text)


def _corners(a: list[str], b: list[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """CropIndex between the phones of a, and those of b that stand for them: what lies between is in between.

    Raises:
        InputError: if these are not the phones of one text.
    """
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    blocks = matcher.get_matching_blocks()
    if sum(block.size for block in blocks) < ALIKE * max(1, len(a)):
        raise InputError("the phones given are not those of the text, as eSpeak NG says it: is this its language?")
    pairs = [pair for m in blocks for pair in ((m.a, m.b), (m.a + m.size, m.b + m.size))]
    return tuple(zip((0, 0), *pairs, strict=True))
