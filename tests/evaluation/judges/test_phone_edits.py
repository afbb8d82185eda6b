"""Phones and edits: cases made by hand, and what must hold for all."""

import random

import jiwer
import pytest

from codec.evaluation.judges.phone_edits import Edits, Heard, Said, align, edits_within, said

WORD = [("_", 0.0), ("k", 0.1), ("aː", 0.2), ("t", 0.4), ("_", 0.5), ("s", 0.8)]
TRUTH = said(WORD, 1.0)  # k 0.1-0.2, a 0.2-0.4, t 0.4-0.5, s 0.8-1.0


def heard(text: str) -> list[Heard]:
    return [Heard(symbol, float(time)) for symbol, _, time in (word.partition("@") for word in text.split())]


def test_pauses_and_length_are_left_out():
    assert [Said("k", 0.1, 0.2), Said("a", 0.2, 0.4), Said("t", 0.4, 0.5), Said("s", 0.8, 1.0)] == TRUTH
    assert said([], 1.0) == said([("_", 0.0)], 1.0) == []


@pytest.mark.parametrize(
    ("what", "span", "expected"),
    [
        ("k@.15 a@.3 t@.45 s@.9", (0.0, 1.0), Edits(0, 4)),
        ("k@.15 a@.3 t@.45 s@.9", (0.25, 0.5), Edits(0, 2)),
        ("k@.15 a@.3 t@.45 s@.9", (0.5, 0.8), Edits(0, 0)),  # a pause
        ("", (0.0, 1.0), Edits(4, 4)),
        ("", (0.25, 0.5), Edits(2, 2)),
        ("k@.15 o@.3 t@.45 s@.9", (0.25, 0.5), Edits(1, 2)),  # a substitution inside,
        ("p@.15 a@.3 t@.45 s@.9", (0.25, 0.5), Edits(0, 2)),  # outside,
        ("p@.15 a@.3 t@.45 z@.9", (0.0, 1.0), Edits(2, 4)),
        ("k@.15 a@.3 n@.42 t@.45 s@.9", (0.25, 0.5), Edits(1, 2)),  # an insertion inside,
        ("k@.15 a@.3 t@.45 n@.7 s@.9", (0.25, 0.5), Edits(0, 2)),  # outside,
        ("k@.15 a@.3 t@.45 n@.7 s@.9", (0.5, 0.8), Edits(1, 0)),  # in a pause
        ("k@.15 t@.45 s@.9", (0.25, 0.5), Edits(1, 2)),  # a deletion
        ("k@.15 t@.3 a@.45 s@.9", (0.25, 0.5), Edits(2, 2)),  # an exchange is two edits
        ("k@.15 a@.24 t@.55 s@.9", (0.25, 0.5), Edits(0, 2)),  # right, but said a little too early and too late
        ("x@.1 y@.2 z@.3 k@.4 a@.5 t@.6 s@.9", (0.25, 0.5), Edits(1, 2)),  # right, but late: only z is one too many
    ],
)
def test_edits_in_a_span(what, span, expected):
    assert edits_within(TRUTH, heard(what), span) == expected


def test_of_two_ways_to_align_the_one_that_fits_in_time_counts():
    truth = [Said("a", 0.0, 0.1), Said("a", 1.0, 1.1)]
    assert align(truth, heard("a@1.05")) == [(0, None), (1, 0)]
    assert align(truth, heard("a@.05")) == [(0, 0), (1, None)]
    assert edits_within(truth, heard("a@1.05"), (0.0, 0.5)) == Edits(1, 1)
    assert edits_within(truth, heard("a@.05"), (0.0, 0.5)) == Edits(0, 1)


def test_the_edits_are_the_fewest_and_spans_share_them_out():
    rng = random.Random(0)
    for _ in range(50):
        truth = said([(rng.choice("abc"), 0.1 * i) for i in range(rng.randint(1, 8))], 1.0)
        guess = [Heard(rng.choice("abc"), time) for time in sorted(rng.random() for _ in range(rng.randint(0, 8)))]
        words = (" ".join(phone.symbol for phone in phones) for phones in (truth, guess))
        fewest = round(jiwer.wer(*words) * len(truth))
        assert edits_within(truth, guess, (0.0, 9.0)) == Edits(fewest, len(truth))
        cut = rng.random()
        parts = edits_within(truth, guess, (0.0, cut)), edits_within(truth, guess, (cut, 9.0))
        assert (sum(p.edits for p in parts), sum(p.phones for p in parts)) == (fewest, len(truth))
