"""The ceiling, the floor and the spans between them."""

import pytest
import torch

from codec.evaluation.judges.phone_edits import phone_segments
from codec.flow.evaluation.bounds import CONTEXT, copy_synthesis, draw_span, frames_of, interpolation
from codec.utils.errors import InputError


def test_a_straight_line_is_its_own_interpolation_and_the_inside_is_not_read():
    slope, offset = torch.randn(2, 3, 1), torch.randn(2, 3, 1)
    line = slope * torch.arange(10.0) + offset
    span = torch.zeros(2, 10, dtype=torch.bool)
    span[0, 3:7] = True
    span[1, 1:3] = span[1, 5:9] = True
    secret = torch.where(span[:, None], torch.nan, line)
    torch.testing.assert_close(interpolation(secret, span), line, atol=1e-5, rtol=1e-5)
    assert torch.equal(copy_synthesis(line, span), line)


def test_at_the_ends_the_nearest_known_frame_goes_on_and_the_known_stays():
    known = torch.randn(1, 2, 6)
    span = torch.tensor([[True, True, False, False, True, True]])
    filled = interpolation(known, span)
    assert torch.equal(filled[..., :2], known[..., 2:3].expand(1, 2, 2))
    assert torch.equal(filled[..., 4:], known[..., 3:4].expand(1, 2, 2))
    assert torch.equal(filled[..., 2:4], known[..., 2:4])


def test_nothing_known_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="whole recording"):
        interpolation(torch.zeros(1, 2, 4), torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"\[B, F\]"):
        interpolation(torch.zeros(1, 2, 4), torch.ones(1, 5, dtype=torch.bool))


PHONES = [("_", 0.0), ("a", 0.5), ("b", 1.0), ("_", 1.4), ("c", 2.6)]


def test_spans_repeat_leave_context_and_hold_a_phone():
    drawn = [draw_span(PHONES, 3.0, seed=0, number=n) for n in range(200)]
    assert drawn == [draw_span(PHONES, 3.0, seed=0, number=n) for n in range(200)]
    assert drawn != [draw_span(PHONES, 3.0, seed=1, number=n) for n in range(200)]
    lengths = {round(end - start, 3) for start, end in drawn}
    assert (min(lengths), max(lengths)) == (0.32, 1.52)
    for start, end in drawn:
        assert start >= CONTEXT - 1e-9
        assert end <= 3.0 - CONTEXT + 1e-9
        assert any(start <= (phone.start + phone.end) / 2 < end for phone in phone_segments(PHONES, 3.0))


def test_recordings_without_room_or_phones_are_refused():
    with pytest.raises(InputError, match="no room"):
        draw_span(PHONES, 0.9, 0, 0)
    with pytest.raises(InputError, match="no phone"):
        draw_span([("_", 0.5)], 3.0, 0, 0)


@pytest.mark.parametrize("frame_rate", [12.5, 25.0, 50.0, 75.0])
def test_spans_are_whole_frames_at_the_usual_rates(frame_rate):
    frames = int(3.0 * frame_rate)
    for number in range(50):
        start, end = draw_span(PHONES, 3.0, 0, number)
        inside = frames_of((start, end), frames, frame_rate).nonzero()[:, 0]
        assert int(inside[0]) / frame_rate == pytest.approx(start)
        assert (int(inside[-1]) + 1) / frame_rate == pytest.approx(end)
        assert len(inside) == round((end - start) * frame_rate)


def test_a_frame_that_is_only_touched_is_filled_in_whole():
    assert frames_of((0.1, 0.2), 5, 10.0).tolist() == [False, True, False, False, False]
    assert frames_of((0.05, 0.21), 5, 10.0).tolist() == [True, True, True, False, False]
