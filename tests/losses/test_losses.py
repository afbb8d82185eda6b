"""The losses of a run as one object."""

import pytest
import torch

from codec.discriminators.base import DiscriminatorSet
from codec.discriminators.mpd import MultiPeriod
from codec.losses.adversarial import FeatureMatching, Hinge
from codec.losses.balancer import Balancer, Weighted
from codec.losses.base import Losses
from codec.losses.mel import MultiScaleMel
from codec.losses.waveform import L1

WEIGHTS = {"l1": 0.1, "mel": 1.0, "adversarial": 1.0, "feature": 2.0}


def build(weights=WEIGHTS, combine=None):
    terms = {"l1": L1(), "mel": MultiScaleMel(16000, windows=(64, 256), mels=(5, 20))}
    return Losses(terms, Hinge(), FeatureMatching(), weights, combine or Weighted(), commitment=0.25)


def waves(seed):
    return torch.rand(2, 1, 2000, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("combine", [Weighted, Balancer])
def test_a_whole_step_reaches_the_waveform_and_the_discriminator(combine):
    torch.manual_seed(0)
    losses, critic = build(combine=combine()), MultiPeriod(periods=(2, 3), widths=(4, 8))
    real, fake = waves(0), waves(1).requires_grad_()
    real_maps, fake_maps = critic(real), critic(fake)
    found = {**losses.reconstruction(real, fake), **losses.generator(real_maps, fake_maps)}
    assert set(found) == set(WEIGHTS)
    grad = losses.gradient(found, fake)
    assert grad.shape == fake.shape
    assert grad.abs().sum() > 0
    assert not grad.requires_grad
    losses.discriminator(real_maps, fake_maps).backward()
    assert all(p.grad is not None for p in critic.parameters())
    assert set(losses.combine.shares) == set(WEIGHTS)


def test_the_gradient_is_that_of_the_weighted_sum():
    losses, real, fake = build(), waves(0), waves(1).requires_grad_()
    critic = MultiPeriod(periods=(2,), widths=(4, 8))
    found = {**losses.reconstruction(real, fake), **losses.generator(critic(real), critic(fake))}
    expected = torch.autograd.grad(sum(WEIGHTS[k] * v for k, v in found.items()), fake, retain_graph=True)[0]
    torch.testing.assert_close(losses.gradient(found, fake), expected)


@pytest.mark.parametrize("combine", [Weighted, Balancer])
def test_without_discriminators_the_reconstruction_trains_alone(combine):
    losses, real, fake = build(combine=combine()), waves(0), waves(1).requires_grad_()
    maps = DiscriminatorSet({})(fake)
    found = {**losses.reconstruction(real, fake), **losses.generator(maps, maps)}
    assert set(found) == {"l1", "mel"}
    assert losses.gradient(found, fake).abs().sum() > 0
    assert losses.discriminator(maps, maps) == 0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({k: v for k, v in WEIGHTS.items() if k != "mel"}, "missing for mel, weights without a loss: none"),
        ({k: v for k, v in WEIGHTS.items() if k != "feature"}, "missing for feature"),
        (WEIGHTS | {"stft": 1.0}, "without a loss: stft; valid keys are adversarial, feature, l1, mel"),
    ],
)
def test_weights_that_do_not_fit_the_terms_raise(weights, message):
    with pytest.raises(ValueError, match=message):
        build(weights)


def test_a_term_may_not_take_a_discriminators_name():
    with pytest.raises(ValueError, match="may not be called feature"):
        Losses({"feature": L1()}, Hinge(), FeatureMatching(), WEIGHTS, Weighted())


def test_nothing_trains_and_only_the_balancer_is_saved():
    assert not list(build().parameters())
    assert not build().state_dict()
    assert set(build(combine=Balancer()).state_dict()) == {f"combine.means.{name}" for name in WEIGHTS}
    assert build().commitment == 0.25
