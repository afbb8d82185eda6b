"""Spans of recordings: the same for every codec, with context, and with phones in them."""

import pytest

from codec.evaluation.judges.phone_edits import phone_segments
from codec.flow.evaluation.spans import CONTEXT, frame_mask, random_span, with_spans
from codec.utils.errors import InputError
from tests.helpers.tones import RATE, Tones

PHONES = [("_", 0.0), ("a", 0.5), ("b", 1.0), ("_", 1.4), ("c", 2.6)]


def test_random_spans_repeat_leave_context_and_hold_a_phone():
    spans = [random_span(PHONES, 3.0, seed=0, number=n) for n in range(200)]
    assert spans == [random_span(PHONES, 3.0, seed=0, number=n) for n in range(200)]
    assert spans != [random_span(PHONES, 3.0, seed=1, number=n) for n in range(200)]
    lengths = {round(end - start, 3) for start, end in spans}
    assert (min(lengths), max(lengths)) == (0.32, 1.52)
    for start, end in spans:
        assert CONTEXT - 1e-9 <= start < end <= 3.0 - CONTEXT + 1e-9
        assert any(start <= phone.middle < end for phone in phone_segments(PHONES, 3.0))
    with pytest.raises(InputError, match="no room"):
        random_span(PHONES, 0.9, 0, 0)
    with pytest.raises(InputError, match="no phone"):
        random_span([("_", 0.5)], 3.0, 0, 0)


@pytest.mark.parametrize("frame_rate", [12.5, 25.0, 50.0, 75.0])
def test_spans_are_whole_frames_at_the_usual_rates(frame_rate):
    for number in range(50):
        start, end = random_span(PHONES, 3.0, 0, number)
        inside = frame_mask((start, end), int(3.0 * frame_rate), frame_rate).nonzero()[:, 0]
        assert int(inside[0]) / frame_rate == pytest.approx(start)
        assert (int(inside[-1]) + 1) / frame_rate == pytest.approx(end)
        assert len(inside) == round((end - start) * frame_rate)


def test_frames_that_overlap_a_span_belong_to_it():
    assert frame_mask((0.1, 0.2), 5, 10.0).tolist() == [False, True, False, False, False]
    assert frame_mask((0.05, 0.21), 5, 10.0).tolist() == [True, True, True, False, False]


def test_spans_are_those_of_the_recording_and_others_are_named():
    clips = [Tones(2.5)[0], Tones(0.5)[1], Tones(2.5)[2], Tones(3.5)[3]]
    found, skipped = with_spans(clips, RATE, longest=3.0)
    assert [(r.clip, r.span) for r in found] == [(str(n), random_span(clips[n]["phones"], 2.5, 0, n)) for n in (0, 2)]
    assert [name for name, _ in skipped] == ["1", "3"]
    assert "no room" in skipped[0][1]
    assert "longer than 3 s" in skipped[1][1]
    assert [recording.clip for recording in with_spans(clips, RATE, most=1)[0]] == ["0"]
    found, skipped = with_spans(clips, RATE, after=2.25)  # all that follows
    assert [(recording.clip, recording.span) for recording in found] == [("3", (2.25, 3.5))]
    assert ["less than 0.32 s" in reason for _, reason in skipped] == [True] * 3
    silent = clips[3] | {"phones": [("a", 0.0), ("_", 1.0)]}
    assert "no phone after 1.5 s" in with_spans([silent], RATE, after=1.5)[1][0][1]
