"""Griffin-Lim: the mel that it was given, at its level, twice the same."""

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
    return torch.from_numpy(speechlike(1.5, 22_050, 3)).view(1, 1, -1)


def decibels(system: GriffinLim, a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean difference of two clips' log mels, in dB, in frames that are not silent."""
    a, b = system.mel(a[0]), system.mel(b[0])
    loud = a.sum(dim=1) > 0.01 * a.sum(dim=1).max()
    return float((20 * (a.log10() - b.log10()).abs()).mean(dim=1)[loud].mean())


def test_its_mel_and_its_level_are_the_clips(system, wav):
    out = system.reconstruct(wav, 22_050)
    assert out.shape == wav.shape
    assert decibels(system, wav, out) < 2.5
    assert float(out.std()) == pytest.approx(float(wav.std()), rel=0.1)
    assert not torch.allclose(out, wav, atol=0.02)  # the phases are not the clip's


def test_more_iterations_come_closer(system, wav):
    assert decibels(system, wav, system.reconstruct(wav, 22_050)) < decibels(
        system, wav, GriffinLim(iterations=2).reconstruct(wav, 22_050)
    )


def test_magnitudes_have_the_mel_that_was_asked_for(system, wav):
    mel = system.mel(wav[0])
    spectrum = system.magnitudes(mel)
    assert spectrum.min() >= 0
    again = (system.filters @ spectrum).clamp(min=1e-5)
    assert (20 * (again.log10() - mel.log10()).abs()).mean() < 0.5


def test_same_clip_same_sound_whatever_was_drawn_before(system, wav):
    first = system.reconstruct(wav, 22_050)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(system.reconstruct(wav, 22_050), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(GriffinLim(seed=1).reconstruct(wav, 22_050), first)


@pytest.mark.parametrize("samples", [1, 500, 1023, 1025])
def test_short_clips_and_other_rates(system, wav, samples):
    out = system.reconstruct(wav[..., :samples], 22_050)
    assert out.shape == (1, 1, samples)
    assert torch.isfinite(out).all()
    assert reconstruct_at(system, wav[..., :samples], 16_000).shape == (1, 1, samples)


def test_silence_stays_silent(system):
    assert system.reconstruct(torch.zeros(1, 1, 8000), 22_050).abs().max() < 1e-3


def test_facts(system):
    assert system.facts() == {"kbps": None, "mels": 80, "frame_rate_hz": 22_050 / 256, "iterations": 60}
