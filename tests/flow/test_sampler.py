"""Samplers against closed forms, and the windows of long recordings."""

import pytest
import torch

from codec.flow.objective import on_path
from codec.flow.sampler import integrate, noise_like, windows


def test_the_flow_of_a_gaussian_and_the_order_of_the_samplers():
    """From N(0, 1) to N(mean, std ** 2) along the straight path, the velocity is linear in x, and the flow a shift and
    a scale."""
    mean, std = 1.5, 0.2
    x0 = torch.randn(2_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def field(x, t):
        variance = (t * std) ** 2 + (1 - t) ** 2
        return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)

    exact, errors = mean + std * x0, {}
    for sampler in ("euler", "midpoint"):
        for steps in (8, 16, 64):
            errors[sampler, steps] = float((integrate(field, x0, steps, sampler) - exact).square().mean().sqrt())
    for steps in (8, 16, 64):
        assert errors["midpoint", steps] < 0.5 * errors["euler", steps]
    assert errors["euler", 64] < 0.25 * errors["euler", 8]
    assert errors["midpoint", 64] < 0.04 * errors["midpoint", 8]
    assert errors["midpoint", 64] < 0.01


@pytest.mark.parametrize("sampler", ["euler", "midpoint"])
def test_known_frames_are_on_the_path_at_every_evaluation(sampler):
    known, noise, outside = torch.randn(1, 2, 6), torch.randn(1, 2, 6), torch.arange(6) < 3
    times = []

    def put_back(x, t):
        return torch.where(outside, on_path(known, noise, torch.tensor([t])), x)

    def field(x, t):
        times.append(t)
        torch.testing.assert_close(x[..., :3], (t * known + (1 - t) * noise)[..., :3])
        return torch.randn_like(x)

    out = integrate(field, noise, 4, sampler, put_back)
    assert torch.equal(out[..., :3], known[..., :3])
    assert times == ([0.0, 0.25, 0.5, 0.75] if sampler == "euler" else [n / 8 for n in range(8)])


def test_noise_depends_on_seed_and_place_in_the_batch_alone():
    wide = noise_like(torch.zeros(2, 3, 50), [17, 50], 5)
    assert torch.equal(noise_like(torch.zeros(1, 3, 17), [17], 5)[0], wide[0, :, :17])
    assert not wide[0, :, 17:].any()
    assert not torch.equal(wide, noise_like(torch.zeros(2, 3, 50), [17, 50], 6))
    assert not torch.equal(wide[0, 0, :17], wide[1, 0, :17])


def test_windows_cover_every_frame_of_a_span_once():
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        size, frames = (20, 1)[seed % 7 == 6], int(torch.randint(21, 150, (), generator=generator))
        span = torch.rand(frames, generator=generator) < (0.02, 0.3, 0.98)[seed % 3]
        covered = torch.zeros(frames, dtype=torch.int64)
        for begin, part in windows(span, size):
            assert len(part) == size
            assert 0 <= begin <= frames - size
            covered[begin : begin + size] += part
            # the rest of the window is context by now
            assert not (span[begin : begin + size] & (covered[begin : begin + size] == 0)).any()
        assert torch.equal(covered, span.long())


def test_a_short_span_is_in_the_middle_and_a_long_one_has_context_before():
    span = torch.zeros(100, dtype=torch.bool)
    span[50:54] = True
    ((begin, part),) = windows(span, 20)
    assert (begin, part.nonzero().flatten().tolist()) == (42, [8, 9, 10, 11])
    span[30:90] = True
    assert all(int(part.nonzero()[0]) >= 5 for _, part in windows(span, 20))
