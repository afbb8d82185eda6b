"""Griffin-Lim: the mel spectrogram and level of the clip, reproducible."""

import pytest
import torch

from codec.evaluation.baselines.base import reconstruct_at
from codec.evaluation.baselines.griffin_lim import GriffinLim
from tests.helpers.signals import speechlike

WAV = torch.from_numpy(speechlike(1.0, 22_050, 3)).view(1, 1, -1)


@pytest.fixture(scope="module")
def system() -> GriffinLim:
    return GriffinLim()


def mel_difference(system: GriffinLim, a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean difference of log mels in dB, over frames that are not silent."""
    a, b = system.mel(a[0]), system.mel(b[0])
    loud = a.sum(dim=1) > 0.01 * a.sum(dim=1).max()
    return float((20 * (a.log10() - b.log10()).abs()).mean(dim=1)[loud].mean())


def test_mel_and_level_are_kept_better_with_more_iterations(system):
    out = system.reconstruct(WAV, 22_050)
    assert out.shape == WAV.shape
    assert mel_difference(system, WAV, out) < 2.5
    assert float(out.std()) == pytest.approx(float(WAV.std()), rel=0.1)
    assert not torch.allclose(out, WAV, atol=0.02)  # the phases are not the clip's
    few = GriffinLim(iterations=2, seed=1).reconstruct(WAV, 22_050)
    assert mel_difference(system, WAV, out) < mel_difference(system, WAV, few)


def test_clips_are_reproducible_whatever_the_global_generator(system):
    short = WAV[..., :2000]
    first = system.reconstruct(short, 22_050)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(system.reconstruct(short, 22_050), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(GriffinLim(seed=1).reconstruct(short, 22_050), first)


@pytest.mark.parametrize("samples", [1, 500, 1025])
def test_short_clips_silence_and_other_rates(system, samples):
    assert torch.isfinite(system.reconstruct(WAV[..., :samples], 22_050)).all()
    assert reconstruct_at(system, WAV[..., :samples], 16_000).shape == (1, 1, samples)
    assert system.reconstruct(torch.zeros(1, 1, samples), 22_050).abs().max() < 1e-3
