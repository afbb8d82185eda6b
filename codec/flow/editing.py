"""Planning of speech edits: spans in seconds -> frames, and words to replace -> frames and timed phones."""

import math
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np

from codec.data.espeak import Pronunciation
from codec.flow.masking import runs
from codec.utils.errors import InputError

Phones = Sequence[tuple[str, float]]
PAUSE = "_"
FEWEST_MATCHES = 0.6  # share of the phones of a text that must be among those of its recording, in order
ROUNDING = 1e-6  # of a frame: 1.2 s at 12.5 Hz are 15 frames


def span_frames(spans: Sequence[tuple[float, float]], seconds: float, frame_rate: float) -> list[tuple[int, int]]:
    """Spans in seconds -> the latent frames (first, end) that they overlap. Raises InputError if a span is reversed,
    outside of the recording of ``seconds``, or shorter than a frame."""
    found = []
    for start, end in spans:
        span = f"the span from {start:g} to {end:g} s"
        if end <= start:
            raise InputError(f"{span} ends before it begins: give its start, then its end")
        if start < 0 or end > seconds + ROUNDING / frame_rate:
            raise InputError(f"{span} is not within the recording, which is {seconds:.2f} s long")
        if (end - start) * frame_rate < 1 - ROUNDING:
            raise InputError(f"{span} is shorter than a latent frame, which is {1 / frame_rate:g} s: lengthen it")
        found.append((math.floor(start * frame_rate + ROUNDING), math.ceil(end * frame_rate - ROUNDING)))
    return found


def longest_known(span: np.ndarray, most: int) -> tuple[int, int]:
    """Longest run (begin, end) outside of ``span`` ``[F]`` bool, cut to its first ``most`` frames; (0, 0) if there is
    none."""
    begins, ends = runs(~span)
    if not len(begins):
        return 0, 0
    longest = int(np.argmax(ends - begins))
    return int(begins[longest]), int(min(ends[longest], begins[longest] + most))


def stretched(phones: Phones, factor: float) -> list[tuple[str, float]]:
    """Phones with start times multiplied by ``factor``."""
    return [(symbol, start * factor) for symbol, start in phones]


class Edit(NamedTuple):
    """Plan of a recording with some words replaced: its new transcript, and the frames to remove and to generate."""

    text: str
    phones: list[tuple[str, float]]  # like the text, of the edited recording
    first: int  # first frame that is removed
    end: int  # first frame after those that are removed
    frames: int  # number of frames generated in their place


class Replacement(NamedTuple):
    """Words to replace in a text: characters [``begin``, ``end``), which are its words [``first``, ``last``)."""

    begin: int
    end: int
    first: int
    last: int


def find_words(text: str, words: str) -> Replacement:
    """The one place of words in a text, ignoring case and punctuation. Raises InputError for none, and for several."""
    wanted = [word.group().casefold() for word in _words(words)]
    if not wanted:
        raise InputError("there are no words to replace: name some of the text")
    there = _words(text)
    folded = [word.group().casefold() for word in there]
    places = [n for n in range(len(there)) if folded[n : n + len(wanted)] == wanted]
    if len(places) != 1:
        reason = f"{len(places)} times in the text: name more of the words around" if places else "not in the text"
        raise InputError(f"{words!r} is {reason}")
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
    """Plan of the replacement of words in a recording whose phones have times.

    New words have eSpeak NG's duration, scaled to the pace of the recording; what follows moves by whole frames. Raises
    InputError if there are no new words, phones have no times, or they do not match the text.

    Args:
        text, phones: of the recording, which lasts ``seconds``.
        place: of the old words, from :func:`find_words`.
        before, after: eSpeak NG's phones of the text with the old and with the new words.
        rate: latent frames per second.
    """
    count = len(_words(new))
    if not count:
        raise InputError("there are no new words: give those in place of the old")
    if not phones or any(start is None for _, start in phones):
        raise InputError("words can only be replaced by the times of phones: give phones with their start times")
    edited_text = text[: place.begin] + new + text[place.end :]
    symbols, times = [symbol for symbol, _ in phones], [start for _, start in phones] + [seconds]
    # old words: their phones in eSpeak's reading, then those of the recording that match them
    corners = _matches([symbol for symbol, _ in before.phones], symbols)
    a, b = (round(float(np.interp(n, *corners))) for n in _phones_of(text, before, place.first, place.last))
    if b <= a:
        raise InputError(f"no phones of the recording match {text[place.begin : place.end]!r}")
    c, d = _phones_of(edited_text, after, place.first, place.first + count)
    new_times = [start for _, start in after.phones] + [after.seconds]
    start, end, duration = times[a], times[b], new_times[d] - new_times[c]
    # pace of the recording, from its first to its last phone, relative to eSpeak's
    spoken, usual = phones[-1][1] - phones[0][1], before.phones[-1][1] - before.phones[0][1]
    pace = spoken / usual if spoken > 0 and usual > 0 else 1.0
    longer = math.ceil((pace * duration - (end - start)) * rate - ROUNDING)  # frames; may be negative
    first = math.floor(start * rate + ROUNDING)
    last = min(math.ceil(end * rate - ROUNDING), math.ceil(seconds * rate - ROUNDING))
    frames = max(1, last - first + longer)
    shift = (frames - (last - first)) / rate
    factor = (end + shift - start) / duration
    inserted = [(symbol, start + factor * (time - new_times[c])) for symbol, time in after.phones[c:d]]
    moved = [*phones[:a], *inserted, *((symbol, time + shift) for symbol, time in phones[b:])]
    return Edit(edited_text, moved, first, last, frames)


def _phones_of(text: str, reading: Pronunciation, first: int, last: int) -> tuple[int, int]:
    """Phones (first, end) in eSpeak's reading of words ``first`` to ``last`` of a text, without a pause after them."""
    words, starts = _words(text), {}
    for letter, time in reading.words:
        number = next((n for n, word in enumerate(words) if word.end() > letter), len(words))
        starts.setdefault(number, time)
    if first not in starts or (last < len(words) and last not in starts):
        at = last if first in starts else first
        pair = text[words[at - 1].start() : words[at].end()] if at else words[0].group()
        raise InputError(f"{pair!r} is spoken as one word: name these words together, old and new")
    begin, end = starts[first], starts.get(last, reading.seconds)
    numbers = [n for n, (_, time) in enumerate(reading.phones) if begin <= time < end]
    while numbers and reading.phones[numbers[-1]][0] == PAUSE:
        numbers.pop()
    if not numbers:
        raise InputError(f"{text[words[first].start() : words[last - 1].end()]!r} has no phones")
    return numbers[0], numbers[-1] + 1


def _words(text: str) -> list[re.Match]:
    return list(re.finditer(r"\w+", text))


def _matches(a: list[str], b: list[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Matching positions in a and in b, for interpolation. Raises InputError unless a and b are phones of one text."""
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    if sum(block.size for block in blocks) < FEWEST_MATCHES * max(1, len(a)):
        raise InputError("the phones given do not match those of the text by eSpeak NG: is this its language?")
    pairs = [pair for m in blocks for pair in ((m.a, m.b), (m.a + m.size, m.b + m.size))]
    return tuple(zip((0, 0), *pairs, strict=True))
