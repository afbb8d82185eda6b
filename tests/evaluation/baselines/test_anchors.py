"""Identity and low-pass: the ends of a MUSHRA scale."""

import math

import pytest
import torch

from codec.evaluation.baselines.anchors import Identity, LowPass


def tone(frequency: float, rate: int) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(rate) / rate).view(1, 1, -1)


def test_identity_returns_a_copy():
    wav = tone(440, 16_000)
    out = Identity().reconstruct(wav, 16_000)
    assert torch.equal(out, wav)
    assert out is not wav


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_low_pass_is_flat_without_delay_below_the_cutoff_and_blocks_above(rate):
    system = LowPass(3500)
    middle = slice(rate // 4, -rate // 4)  # away from the clip's ends
    for frequency in (50, 2000, 3500, *range(4000, rate // 2, 4000)):
        wav = tone(frequency, rate)
        out = system.reconstruct(wav, rate)
        assert (out.shape, out.dtype) == (wav.shape, torch.float32)
        gain = 20 * math.log10(out[..., middle].std() / wav[..., middle].std())
        if frequency <= 3500:
            assert abs(gain) < 0.1
            assert (out - wav)[..., middle].abs().max() < 0.01  # zero phase
        else:
            assert gain < -55
    assert system.reconstruct(wav[..., :5], rate).shape == (1, 1, 5)
    assert system.facts() == {"kbps": None, "cutoff_hz": 3500}


def test_impossible_cutoffs_are_refused():
    with pytest.raises(ValueError, match="above 0 Hz"):
        LowPass(0)
    with pytest.raises(ValueError, match="16000 Hz or more"):
        LowPass(7000).reconstruct(tone(100, 8000), 8000)
