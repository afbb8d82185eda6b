"""Reference and recognised phones, and the edits between them within a span of time."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jiwer
from torch import Tensor

from codec.layers.ctc import greedy_labels

VERSION = 1  # raise it when the symbols change: caches are keyed by it
PAUSE = "_"
LENGTH = str.maketrans("", "", "ː:ˑ-")  # marks of length: whether a vowel is long depends on the tempo


class PhoneSegment(NamedTuple):
    """A reference phone, from ``start`` to ``end`` in seconds."""

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
    """Number of substitutions, deletions and insertions, and of phones in the reference."""

    edits: int
    phones: int


def phone_segments(phones: Sequence[tuple[str, float]], seconds: float) -> list[PhoneSegment]:
    """Phones of an item (codec/data/base.py) of ``seconds``, without pauses and length marks; each ends at the next."""
    ends = [*(start for _, start in phones), seconds][1:]
    folded = ((symbol.translate(LENGTH), start, end) for (symbol, start), end in zip(phones, ends, strict=True))
    return [PhoneSegment(*phone) for phone in folded if phone[0] not in ("", PAUSE)]


def transcript(logits: Tensor, symbols: Sequence[str], frame_rate: float) -> list[PhoneToken]:
    """Greedy CTC transcript: logits ``[F, 1 + phones]``, label i is ``symbols[i - 1]``, timed mid-way in its run."""
    return [PhoneToken(symbols[n - 1], (first + end) / 2 / frame_rate) for n, first, end in greedy_labels(logits)]


def error_rate(references: Iterable[Sequence[PhoneSegment]], hypotheses: Iterable[Sequence[PhoneToken]]) -> float:
    """Phone error rate, edits per reference phone (at least one is needed), of all recordings together."""
    texts = ([" ".join(phone.symbol for phone in phones) for phones in part] for part in (references, hypotheses))
    return float(jiwer.wer(*texts))


def edits_within(
    reference: Sequence[PhoneSegment], hypothesis: Sequence[PhoneToken], span: tuple[float, float]
) -> Edits:
    """Edits that belong to ``span``, ``(start, end)`` in seconds, in the alignment of the whole recording.

    A reference phone, and its deletion or substitution, belongs to the span if its middle lies in [start, end), an
    insertion if its time does: the edits of spans that tile a recording add up to all its edits.
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
    """Alignment with the fewest edits: pairs (reference index, hypothesis index) in order, None for a missing side.

    Ties go to the smallest sum of time differences of paired phones: the fewest edits alone (jiwer) leave open on which
    side of a span's edge an edit lies.
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
