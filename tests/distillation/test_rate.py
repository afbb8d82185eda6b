"""Features at another frame rate."""

import pytest
import torch

from codec.distillation.teachers.rate import to_frame_rate


def features(batch: int, frames: int, channels: int) -> torch.Tensor:
    return torch.randn(batch, frames, channels, generator=torch.Generator().manual_seed(0))


def slow(x: torch.Tensor, r: int, frames: int) -> torch.Tensor:
    """Means over [centre - r, centre + r) in units of features, by time rather than by index; r may be odd."""
    held = [x[:, min(i, x.shape[1] - 1)] for i in range(frames * r)]
    out = []
    for n in range(frames):
        begin, end = (n + 0.5) * r - r, (n + 0.5) * r + r
        weights = [max(0.0, min(end, i + 1) - max(begin, i)) for i in range(len(held))]
        out.append(sum(w * value for w, value in zip(weights, held, strict=True)) / sum(weights))
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("given", [37, 40, 41])
@pytest.mark.parametrize(("r", "frames"), [(2, 20), (3, 13), (4, 10), (5, 8)])
def test_integer_ratios_average_two_periods_around_each_centre(r, frames, given):
    x = features(2, given, 3)
    found = to_frame_rate(x, 50.0, 50.0 / r, frames)
    assert found.shape == (2, frames, 3)
    torch.testing.assert_close(found, slow(x, r, frames))


def test_mimis_case_is_kernel_8_stride_4_centred():
    x = features(1, 49, 2)  # one second of WavLM
    found = to_frame_rate(x, 50.0, 12.5, 12)
    torch.testing.assert_close(
        found[:, 1:11], torch.stack([x[:, 4 * n - 2 : 4 * n + 6].mean(1) for n in range(1, 11)], 1)
    )
    torch.testing.assert_close(found[:, 0], x[:, :6].mean(1))


@pytest.mark.parametrize("given", [37, 40, 41])
@pytest.mark.parametrize(("r", "frames"), [(2, 20), (3, 13), (4, 10)])
def test_at_repeated_edges_as_many_features_count(r, frames, given):
    x = features(2, given, 3)
    found, inner = (to_frame_rate(x, 50.0, 50.0 / r, frames, repeat=edges) for edges in (True, False))
    torch.testing.assert_close(found[:, 1:-1], inner[:, 1:-1])
    held = torch.cat([x[:, :1]] * r + [x] + [x[:, -1:]] * 4 * r, 1).repeat_interleave(2, dim=1)
    torch.testing.assert_close(found[:, 0], held[:, r : 5 * r].mean(1))  # half features: from -r / 2 to 3 r / 2


def test_equal_rates_copy_and_repeat_the_last():
    x = features(1, 49, 2)
    for frames in (48, 49, 50):
        assert torch.equal(to_frame_rate(x, 50.0, 50.0, frames), torch.cat([x, x[:, -1:]], dim=1)[:, :frames])


@pytest.mark.parametrize(("rate", "frames"), [(75.0, 75), (40.0, 40), (86.13, 87), (100.0, 100), (21.5, 22)])
def test_other_ratios_interpolate_in_time(rate, frames):
    """Features that are linear in time stay so; beyond the ends they are constant."""
    centres = (torch.arange(50) + 0.5) / 50.0
    found = to_frame_rate(centres[None, :, None], 50.0, rate, frames)[0, :, 0]
    torch.testing.assert_close(found, ((torch.arange(frames) + 0.5) / rate).clamp(centres[0], centres[-1]))
