"""Phones that were said, phones that were heard, and the edits between them within a span of time."""

from collections.abc import Sequence
from typing import NamedTuple

VERSION = 1  # raise it when the symbols change: caches are keyed by it
PAUSE = "_"
LENGTH = str.maketrans("", "", "ː:ˑ-")  # marks of length: whether a vowel is long hangs on how fast one speaks


class Said(NamedTuple):
    """A phone as it is known: from ``start`` to ``end``, in seconds."""

    symbol: str
    start: float
    end: float


class Heard(NamedTuple):
    """A phone as it was recognised, at ``time`` seconds."""

    symbol: str
    time: float


class Edits(NamedTuple):
    """``edits`` are substitutions, deletions and insertions; ``phones`` is how many were said."""

    edits: int
    phones: int


def said(phones: Sequence[tuple[str, float]], seconds: float) -> list[Said]:
    """The phones of an item (codec/data/base.py) that lasts ``seconds``; each ends where the next begins.

    Pauses are left out and marks of length dropped.
    """
    ends = [*(start for _, start in phones), seconds][1:]
    folded = ((symbol.translate(LENGTH), start, end) for (symbol, start), end in zip(phones, ends, strict=True))
    return [Said(*phone) for phone in folded if phone[0] not in ("", PAUSE)]


def edits_within(truth: Sequence[Said], heard: Sequence[Heard], span: tuple[float, float]) -> Edits:
    """Edits that belong to ``span``, ``(start, end)`` in seconds, in the alignment of the whole recording.

    The alignment (``align``) is over all phones, so that what is outside of the span holds the inside in its place. A
    phone belongs to the span if its middle lies in [start, end): its deletion or substitution counts, wherever the
    phone that took its place was heard. An insertion counts if it was heard in [start, end). Hence spans that tile a
    recording share out all its edits.
    """
    start, end = span
    inside = [start <= (phone.start + phone.end) / 2 < end for phone in truth]
    edits = 0
    for i, j in align(truth, heard):
        if i is None:
            edits += start <= heard[j].time < end
        else:
            edits += inside[i] and (j is None or heard[j].symbol != truth[i].symbol)
    return Edits(edits, sum(inside))


def align(truth: Sequence[Said], heard: Sequence[Heard]) -> list[tuple[int | None, int | None]]:
    """Pairs (number of a said phone, of a heard one) in order; None stands for a deletion's or insertion's other side.

    Of all alignments with the fewest edits it is the one in which phones that stand for each other are closest in time,
    in sum: the fewest edits alone would leave open on which side of a span's edge an edit lies.
    """
    rows, columns = len(truth) + 1, len(heard) + 1
    cost = [[(i + j, 0.0) for j in range(columns)] for i in range(rows)]  # (edits, seconds), compared in this order
    for i, phone in enumerate(truth, 1):
        middle = (phone.start + phone.end) / 2
        above, row = cost[i - 1], cost[i]
        for j, (symbol, time) in enumerate(heard, 1):
            edits, seconds = above[j - 1]
            row[j] = min(
                (edits + (symbol != phone.symbol), seconds + abs(time - middle)),
                (above[j][0] + 1, above[j][1]),
                (row[j - 1][0] + 1, row[j - 1][1]),
            )
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(truth), len(heard)
    while i or j:  # back along a cheapest path
        if i and cost[i][j] == (cost[i - 1][j][0] + 1, cost[i - 1][j][1]):
            i -= 1
            pairs.append((i, None))
        elif j and cost[i][j] == (cost[i][j - 1][0] + 1, cost[i][j - 1][1]):
            j -= 1
            pairs.append((None, j))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
