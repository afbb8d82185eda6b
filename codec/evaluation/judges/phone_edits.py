"""Phones as they are known and as they were recognised, and the edits between them within a span of time."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jiwer
from torch import Tensor

from codec.layers.ctc import greedy_labels

VERSION = 1  # raise it when the symbols change: caches are keyed by it
PAUSE = "_"
LENGTH = str.maketrans("", "", "ː:ˑ-")  # marks of length: whether a vowel is long depends on the tempo


class PhoneSegment(NamedTuple):
    """A phone of the reference, from ``start`` to ``end`` in seconds."""

    symbol: str
    start: float
    end: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


class PhoneToken(NamedTuple):
    """A recognised phone, at ``time`` seconds."""

    symbol: str
    time: float


class Edits(NamedTuple):
    """``edits`` are substitutions, deletions and insertions; ``phones`` is the number of phones in the reference."""

    edits: int
    phones: int


def phone_segments(phones: Sequence[tuple[str, float]], seconds: float) -> list[PhoneSegment]:
    """The phones of an item (codec/data/base.py) that lasts ``seconds``; each ends where the next begins.

    Pauses are left out and marks of length dropped.
    """
    ends = [*(start for _, start in phones), seconds][1:]
    folded = ((symbol.translate(LENGTH), start, end) for (symbol, start), end in zip(phones, ends, strict=True))
    return [PhoneSegment(*phone) for phone in folded if phone[0] not in ("", PAUSE)]


def transcript(logits: Tensor, symbols: Sequence[str], frame_rate: float) -> list[PhoneToken]:
    """CTC logits ``[F, 1 + phones]`` at ``frame_rate`` Hz -> the greedy transcript.

    Label i is ``symbols[i - 1]``; a phone's time is the middle of its frames.
    """
    return [PhoneToken(symbols[n - 1], (first + end) / 2 / frame_rate) for n, first, end in greedy_labels(logits)]


def error_rate(references: Iterable[Sequence[PhoneSegment]], hypotheses: Iterable[Sequence[PhoneToken]]) -> float:
    """Edits over phones, of all recordings together; at least one phone is needed."""
    texts = ([" ".join(phone.symbol for phone in phones) for phones in part] for part in (references, hypotheses))
    return float(jiwer.wer(*texts))


def edits_within(
    reference: Sequence[PhoneSegment], hypothesis: Sequence[PhoneToken], span: tuple[float, float]
) -> Edits:
    """Edits that belong to ``span``, ``(start, end)`` in seconds, in the alignment of the whole recording.

    A phone of the reference belongs to the span if its middle lies in [start, end), and so does its deletion or
    substitution, wherever the phone in its place was recognised. An insertion counts if its time lies in [start, end).
    Hence the edits of spans that tile a recording add up to all its edits.
    """
    start, end = span
    inside = [start <= phone.middle < end for phone in reference]
    edits = 0
    for i, j in align(reference, hypothesis):
        if i is None:
            edits += start <= hypothesis[j].time < end
        else:
            edits += inside[i] and (j is None or hypothesis[j].symbol != reference[i].symbol)
    return Edits(edits, sum(inside))


def align(reference: Sequence[PhoneSegment], hypothesis: Sequence[PhoneToken]) -> list[tuple[int | None, int | None]]:
    """Pairs (index in the reference, in the hypothesis) in order; None is the missing side of a deletion or insertion.

    Of all alignments with the fewest edits it is the one whose paired phones are closest in time, in sum: the fewest
    edits alone (jiwer) would leave open on which side of a span's edge an edit lies.
    """
    columns = len(hypothesis) + 1
    cost = [[(i + j, 0.0) for j in range(columns)] for i in range(len(reference) + 1)]  # (edits, seconds)
    for i, phone in enumerate(reference, 1):
        above, row = cost[i - 1], cost[i]
        for j, (symbol, time) in enumerate(hypothesis, 1):
            edits, seconds = above[j - 1]
            row[j] = min(
                (edits + (symbol != phone.symbol), seconds + abs(time - phone.middle)),
                (above[j][0] + 1, above[j][1]),
                (row[j - 1][0] + 1, row[j - 1][1]),
            )
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(reference), len(hypothesis)
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
