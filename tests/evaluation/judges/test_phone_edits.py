"""Edits of phones within a span: cases made by hand, and properties of all alignments."""

import random

import jiwer
import pytest
import torch

from codec.evaluation.judges.phone_edits import (
    Edits,
    PhoneSegment,
    PhoneToken,
    edits_within,
    error_rate,
    phone_segments,
    transcript,
)

# k 0.1-0.2, a 0.2-0.4, t 0.4-0.5, s 0.8-1.0
WORD = phone_segments([("_", 0.0), ("k", 0.1), ("aː", 0.2), ("t", 0.4), ("_", 0.5), ("s", 0.8)], 1.0)


def recognised(text: str) -> list[PhoneToken]:
    return [PhoneToken(symbol, float(time)) for symbol, _, time in (word.partition("@") for word in text.split())]


def test_pauses_and_length_are_left_out():
    assert [(phone.symbol, phone.start, phone.end) for phone in WORD] == [
        ("k", 0.1, 0.2), ("a", 0.2, 0.4), ("t", 0.4, 0.5), ("s", 0.8, 1.0)
    ]  # fmt: skip
    assert phone_segments([], 1.0) == phone_segments([("_", 0.0)], 1.0) == []


def test_a_transcript_has_no_blanks_and_no_repetitions():
    found = transcript(torch.eye(3)[[0, 1, 1, 0, 1, 2, 2, 2, 0]], ["a", "b"], 50.0)
    assert [phone.symbol for phone in found] == ["a", "a", "b"]
    assert [phone.time for phone in found] == pytest.approx([0.04, 0.09, 0.13])


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("k@.15 a@.3 t@.45 s@.9", (0.0, 1.0), Edits(0, 4)),
        ("", (0.25, 0.5), Edits(2, 2)),
        ("k@.15 o@.3 t@.45 s@.9", (0.25, 0.5), Edits(1, 2)),  # a substitution inside,
        ("p@.15 a@.3 t@.45 s@.9", (0.25, 0.5), Edits(0, 2)),  # outside,
        ("k@.15 a@.3 n@.42 t@.45 s@.9", (0.25, 0.5), Edits(1, 2)),  # an insertion inside,
        ("k@.15 a@.3 t@.45 n@.7 s@.9", (0.25, 0.5), Edits(0, 2)),  # outside,
        ("k@.15 a@.3 t@.45 n@.7 s@.9", (0.5, 0.8), Edits(1, 0)),  # in a pause
        ("k@.15 t@.45 s@.9", (0.25, 0.5), Edits(1, 2)),  # a deletion
        ("k@.15 t@.3 a@.45 s@.9", (0.25, 0.5), Edits(2, 2)),  # an exchange is two edits
        ("k@.15 a@.24 t@.55 s@.9", (0.25, 0.5), Edits(0, 2)),  # right, but a little too early and too late
        ("x@.1 y@.2 z@.3 k@.4 a@.5 t@.6 s@.9", (0.25, 0.5), Edits(1, 2)),  # right, but late: only z is one too many
    ],
)
def test_edits_in_a_span(text, span, expected):
    assert edits_within(WORD, recognised(text), span) == expected


def test_of_two_alignments_the_one_that_fits_in_time_counts():
    reference = [PhoneSegment("a", 0.0, 0.1), PhoneSegment("a", 1.0, 1.1)]
    assert edits_within(reference, recognised("a@1.05"), (0.0, 0.5)) == Edits(1, 1)
    assert edits_within(reference, recognised("a@.05"), (0.0, 0.5)) == Edits(0, 1)


def test_the_edits_are_the_fewest_and_those_of_spans_add_up():
    rng = random.Random(0)
    for _ in range(25):
        reference = phone_segments([(rng.choice("abc"), 0.1 * i) for i in range(rng.randint(1, 8))], 1.0)
        guess = [PhoneToken(rng.choice("abc"), time) for time in sorted(rng.random() for _ in range(rng.randint(0, 8)))]
        words = (" ".join(phone.symbol for phone in phones) for phones in (reference, guess))
        fewest = round(jiwer.wer(*words) * len(reference))
        assert edits_within(reference, guess, (0.0, 9.0)) == Edits(fewest, len(reference))
        assert error_rate([reference], [guess]) == pytest.approx(fewest / len(reference))
        cut = rng.random()
        parts = [edits_within(reference, guess, span) for span in ((0.0, cut), (cut, 9.0))]
        assert tuple(map(sum, zip(*parts, strict=True))) == (fewest, len(reference))
