"""The anchors do what they say, and nothing else."""

import math

import pytest
import torch

from codec.evaluation.baselines.anchors import Identity, LowPass


def tone(frequency: float, rate: int) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(rate) / rate).view(1, 1, -1)


def test_the_identity_is_the_clip_and_costs_no_bits():
    wav = tone(440, 16_000)
    out = Identity().reconstruct(wav, 16_000)
    assert torch.equal(out, wav)
    assert out is not wav
    assert Identity().facts()["kbps"] is None


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_the_low_pass_keeps_what_is_below_and_removes_what_is_above(rate):
    system = LowPass(3500)
    middle = slice(rate // 4, -rate // 4)  # the clip's ends are no part of a stationary tone
    for frequency in (50, 500, 2000, 3000, 3500):
        wav = tone(frequency, rate)
        out = system.reconstruct(wav, rate)
        assert out.shape == wav.shape
        assert out.dtype == torch.float32
        assert abs(20 * math.log10(out[..., middle].std() / wav[..., middle].std())) < 0.1
        assert (out - wav)[..., middle].abs().max() < 0.01  # in place: zero phase
    for frequency in range(4000, rate // 2, 1000):
        wav = tone(frequency, rate)
        out = system.reconstruct(wav, rate)
        assert 20 * math.log10(out[..., middle].std() / wav[..., middle].std()) < -55


def test_the_low_pass_is_linear_and_takes_any_length():
    system, wav = LowPass(1000), torch.randn(1, 1, 1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(system.reconstruct(-2 * wav, 16_000), -2 * system.reconstruct(wav, 16_000))
    assert system.reconstruct(wav[..., :5], 16_000).shape == (1, 1, 5)
    assert system.facts() == {"kbps": None, "cutoff_hz": 1000}


def test_a_cutoff_that_cannot_be():
    with pytest.raises(ValueError, match="above 0 Hz"):
        LowPass(0)
    with pytest.raises(ValueError, match="needs clips of 16000 Hz or more"):
        LowPass(7000).reconstruct(tone(100, 8000), 8000)
