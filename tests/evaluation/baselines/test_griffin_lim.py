"""Griffin-Lim: the mel spectrogram and level of the clip, reproducible."""

import pytest
import torch

from codec.evaluation.baselines.base import reconstruct_at
from codec.evaluation.baselines.griffin_lim import GriffinLim
from tests.helpers.signals import speechlike


@pytest.fixture(scope="module")
def system() -> GriffinLim:
    return GriffinLim()


@pytest.fixture(scope="module")
def wav() -> torch.Tensor:
    return torch.from_numpy(speechlike(1.0, 22_050, 3)).view(1, 1, -1)


def mel_difference(system: GriffinLim, a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean difference of log mels in dB, over frames that are not silent."""
    a, b = system.mel(a[0]), system.mel(b[0])
    loud = a.sum(dim=1) > 0.01 * a.sum(dim=1).max()
    return float((20 * (a.log10() - b.log10()).abs()).mean(dim=1)[loud].mean())


def test_mel_and_level_are_kept_better_with_more_iterations(system, wav):
    out = system.reconstruct(wav, 22_050)
    assert out.shape == wav.shape
    assert mel_difference(system, wav, out) < 2.5
    assert float(out.std()) == pytest.approx(float(wav.std()), rel=0.1)
    assert not torch.allclose(out, wav, atol=0.02)  # the phases are not the clip's
    few = GriffinLim(iterations=2, seed=1).reconstruct(wav, 22_050)
    assert mel_difference(system, wav, out) < mel_difference(system, wav, few)


def test_magnitudes_are_non_negative_and_have_the_given_mel(system, wav):
    mel = system.mel(wav[0])
    spectrum = system.magnitudes(mel)
    assert spectrum.min() >= 0
    assert (20 * ((system.filters @ spectrum).clamp(min=1e-5).log10() - mel.log10()).abs()).mean() < 0.5


def test_clips_are_reproducible_whatever_the_global_generator(system, wav):
    short = wav[..., :2000]
    first = system.reconstruct(short, 22_050)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(system.reconstruct(short, 22_050), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(GriffinLim(seed=1).reconstruct(short, 22_050), first)


@pytest.mark.parametrize("samples", [1, 500, 1023, 1025])
def test_short_clips_silence_and_other_rates(system, wav, samples):
    assert torch.isfinite(system.reconstruct(wav[..., :samples], 22_050)).all()
    assert reconstruct_at(system, wav[..., :samples], 16_000).shape == (1, 1, samples)
    assert system.reconstruct(torch.zeros(1, 1, samples), 22_050).abs().max() < 1e-3
