"""Samplers against what is known in closed form, and the pieces of long files."""

import pytest
import torch

from codec.flow.objective import on_path
from codec.flow.sampler import integrate, noise_like, windows
from codec.utils.errors import InputError


def test_the_velocity_of_the_path_leads_to_its_end_in_one_step():
    x0, x1 = torch.randn(2, 2, 3, 5)
    for sampler in ("euler", "midpoint"):
        torch.testing.assert_close(integrate(lambda x, t: x1 - x0, x0, 1, sampler), x1)


def test_a_gaussian_is_sampled_and_midpoint_needs_fewer_steps():
    """From N(0, 1) to N(mean, std ** 2) along the straight path, the velocity is linear in x."""
    mean, std = 1.5, 0.2
    x0 = torch.randn(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def field(x, t):
        variance = (t * std) ** 2 + (1 - t) ** 2
        return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)

    exact = mean + std * x0  # the flow of a Gaussian is a shift and a scale
    errors = {}
    for sampler in ("euler", "midpoint"):
        for steps in (8, 16, 64):
            errors[sampler, steps] = float((integrate(field, x0, steps, sampler) - exact).square().mean().sqrt())
    for steps in (8, 16, 64):
        assert errors["midpoint", steps] < 0.5 * errors["euler", steps]
    assert errors["euler", 64] < 0.25 * errors["euler", 8]
    assert errors["midpoint", 64] < 0.04 * errors["midpoint", 8]
    sampled = integrate(field, x0, 64, "midpoint")
    assert float(sampled.mean()) == pytest.approx(mean, abs=0.01)
    assert float(sampled.std()) == pytest.approx(std, abs=0.01)


@pytest.mark.parametrize("sampler", ["euler", "midpoint"])
def test_the_field_is_shown_what_is_known_at_its_time(sampler):
    known, noise, kept = torch.randn(1, 2, 6), torch.randn(1, 2, 6), torch.arange(6) < 3
    times = []

    def put_back(x, t):
        return torch.where(kept, on_path(known, noise, torch.tensor([t])), x)

    def field(x, t):
        times.append(t)
        torch.testing.assert_close(x[..., :3], (t * known + (1 - t) * noise)[..., :3])
        return torch.randn_like(x)

    out = integrate(field, noise, 4, sampler, put_back)
    assert torch.equal(out[..., :3], known[..., :3])
    assert times == ([0.0, 0.25, 0.5, 0.75] if sampler == "euler" else [n / 8 for n in range(8)])


def test_noise_hangs_on_seed_and_place_alone():
    wide = noise_like(torch.zeros(2, 3, 50), [17, 50], 5)
    assert torch.equal(noise_like(torch.zeros(1, 3, 17), [17], 5)[0], wide[0, :, :17])
    assert not wide[0, :, 17:].any()
    assert not torch.equal(wide, noise_like(torch.zeros(2, 3, 50), [17, 50], 6))
    assert not torch.equal(wide[0, 0, :17], wide[1, 0, :17])


@pytest.mark.parametrize("seed", range(20))
def test_pieces_of_a_long_file_fill_in_every_frame_once(seed):
    generator = torch.Generator().manual_seed(seed)
    size, frames = 20, int(torch.randint(21, 150, (), generator=generator))
    span = torch.rand(frames, generator=generator) < (0.02, 0.3, 0.98)[seed % 3]
    filled = torch.zeros(frames, dtype=torch.int64)
    for begin, part in windows(span, size):
        assert len(part) == size
        assert 0 <= begin <= frames - size
        filled[begin : begin + size] += part
        # whatever is not filled in here is known by now
        assert not (span[begin : begin + size] & (filled[begin : begin + size] == 0)).any()
    assert torch.equal(filled, span.long())


def test_a_short_span_stands_in_the_middle_and_a_long_one_keeps_context_behind_it():
    span = torch.zeros(100, dtype=torch.bool)
    span[50:54] = True
    ((begin, part),) = windows(span, 20)
    assert (begin, part.nonzero().flatten().tolist()) == (42, [8, 9, 10, 11])
    span[30:90] = True
    pieces = windows(span, 20)
    assert all(int(part.nonzero()[0]) >= 5 for _, part in pieces)


def test_what_a_sampler_cannot_do_is_said():
    with pytest.raises(InputError, match="sampler=heun: choose euler or midpoint"):
        integrate(lambda x, t: x, torch.zeros(1), 4, "heun")
    with pytest.raises(InputError, match="steps=0"):
        integrate(lambda x, t: x, torch.zeros(1), 0)
