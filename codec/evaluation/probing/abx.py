"""ABX discrimination of triphones (Schatz et al., Interspeech 2013; ZeroSpeech challenges).

A and X are triphones such as b-a-g, B is b-i-g; the error is how often X is nearer to B than to A. Nothing is trained;
chance is 50 %. Within a speaker all three are by one speaker, across speakers X is by another.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from codec.evaluation.judges.phone_edits import phone_segments
from codec.evaluation.metrics.intervals import Interval, mean_interval
from codec.utils.errors import InputError

MOST_TOKENS = 6  # of one triphone by one speaker
MOST_CELLS = 4000  # comparisons of two triphones
BLOCK = 4096  # pairs whose distances are computed at a time


class Token(NamedTuple):
    """One occurrence of a triphone: latents ``[n, C]`` of unit norm."""

    frames: np.ndarray
    speaker: str
    context: tuple[str, str]
    centre: str


Tokens = Sequence[Token]


def abx(items: Iterable[dict], frame_rate: float, sample_rate: int, across: bool = False, seed: int = 0) -> Interval:
    """ABX error, in [0, 1], lower is better, with a 95 % interval over speakers (of X).

    The mean over cells, a cell being a pair of triphones (of A and X, and of B) by one speaker or two, of the mean over
    its triples; ties are half an error. Triphones have no pause between phones; their frames are those with the middle
    inside, at least one. ``seed`` draws at most 6 tokens per triphone and speaker, and 4000 cells. Synthetic voices
    repeat a word in the same way: their errors are lower than those of natural speech. Raises InputError if no two
    triphones can be compared.

    ``items`` have ``latents`` ``[C, F]`` at ``frame_rate`` Hz, ``phones`` (symbol, start in s), ``speaker``, and
    ``samples`` at ``sample_rate`` Hz.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple, list[Token]] = defaultdict(list)  # by context, centre and speaker
    for item in items:
        for token in tokens(item, frame_rate, sample_rate):
            found[token.context, token.centre, token.speaker].append(token)
    kinds = {kind: [some[i] for i in rng.permutation(len(some))[:MOST_TOKENS]] for kind, some in sorted(found.items())}
    cells = list(_cells(kinds, across))
    if not cells:
        where = "across speakers" if across else "within a speaker"
        raise InputError(f"no two triphones that differ in their middle can be compared {where}: give more recordings")
    cells = [cells[i] for i in sorted(rng.permutation(len(cells))[:MOST_CELLS])]
    pairs = {(id(x), id(y)): (x.frames, y.frames) for a, b, xs in cells for x in xs for y in (*a, *b) if y is not x}
    distance = dict(zip(pairs, distances(list(pairs.values())), strict=True))
    errors = []
    for a, b, xs in cells:
        triples = []
        for x in xs:
            to_a = np.array([distance[id(x), id(y)] for y in a if y is not x])[:, None]
            to_b = np.array([distance[id(x), id(y)] for y in b])
            triples.append((1 + np.sign(to_a - to_b)).ravel() / 2)
        errors.append(np.concatenate(triples).mean())
    return mean_interval(errors, [xs[0].speaker for _, _, xs in cells])


def tokens(item: dict, frame_rate: float, sample_rate: int) -> list[Token]:
    """Triphones of one recording."""
    latents = np.asarray(item["latents"], dtype=np.float64).T  # [F, C]
    latents = latents / np.maximum(np.linalg.norm(latents, axis=1, keepdims=True), 1e-12)
    phones = phone_segments(item["phones"], item["samples"] / sample_rate)
    found = []
    for before, phone, after in zip(phones, phones[1:], phones[2:]):
        if before.end < phone.start or phone.end < after.start:  # a pause
            continue
        begin, end = (round(time * frame_rate) for time in (before.start, after.end))  # middles: i + 1/2
        begin = min(begin, len(latents) - 1)
        frames = latents[begin : max(begin + 1, end)]
        found.append(Token(frames, item["speaker"], (before.symbol, after.symbol), phone.symbol))
    return found


def _cells(kinds: dict[tuple, Tokens], across: bool) -> Iterator[tuple[Tokens, Tokens, Tokens]]:
    """Tokens of A, B and X of each cell."""
    by_context: dict[tuple, list[tuple]] = defaultdict(list)
    for context, centre, speaker in kinds:
        by_context[context].append((centre, speaker))
    for context, known in by_context.items():
        for (centre, speaker), (other, same) in permutations(known, 2):
            if other == centre or same != speaker:
                continue
            a, b = kinds[context, centre, speaker], kinds[context, other, speaker]
            if across:
                voices = [voice for third, voice in known if third == centre and voice != speaker]
                yield from ((a, b, kinds[context, centre, voice]) for voice in voices)
            elif len(a) > 1:
                yield a, b, a


def distances(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Distances ``[pairs]`` of unit-norm sequences ``[n, C]``, ``[m, C]`` by dynamic time warping of 1 - cosine.

    The mean along the path, in steps down, right or both, with the smallest sum.
    """
    result = np.empty(len(pairs))
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (one, other) in enumerate(pairs):
        by_shape[len(one), len(other)].append(number)
    for numbers in by_shape.values():
        for block in (numbers[i : i + BLOCK] for i in range(0, len(numbers), BLOCK)):
            one, other = (np.stack([pairs[number][side] for number in block]) for side in (0, 1))
            result[block] = _warped(1 - one @ other.transpose(0, 2, 1))
    return result


def _warped(cost: np.ndarray) -> np.ndarray:
    """Mean cost ``[B]`` along the cheapest path of each matrix of costs ``[B, n, m]``."""
    batch, n, m = cost.shape
    total, steps = np.full((batch, n + 1, m + 1), np.inf), np.zeros((batch, n + 1, m + 1))
    total[:, 0, 0] = 0
    rows = np.arange(batch)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            before = np.stack([total[:, i - 1, j - 1], total[:, i - 1, j], total[:, i, j - 1]])
            best = before.argmin(axis=0)  # both at once, where that is as cheap
            lengths = np.stack([steps[:, i - 1, j - 1], steps[:, i - 1, j], steps[:, i, j - 1]])
            total[:, i, j] = cost[:, i - 1, j - 1] + before[best, rows]
            steps[:, i, j] = 1 + lengths[best, rows]
    return total[:, n, m] / steps[:, n, m]
