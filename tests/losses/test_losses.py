"""All losses of a training run as one object."""

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
def test_a_step_reaches_the_waveform_and_the_discriminator(combine):
    torch.manual_seed(0)
    losses, disc = build(combine=combine()), MultiPeriod(periods=(2, 3), widths=(4, 8))
    real, fake = waves(0), waves(1).requires_grad_()
    real_maps, fake_maps = disc(real), disc(fake)
    found = {**losses.reconstruction(real, fake), **losses.generator(real_maps, fake_maps)}
    assert set(found) == set(WEIGHTS)
    grad = losses.gradient(found, fake)
    assert grad.abs().sum() > 0
    if combine is Weighted:
        expected = torch.autograd.grad(sum(WEIGHTS[k] * v for k, v in found.items()), fake, retain_graph=True)[0]
        torch.testing.assert_close(grad, expected)
    losses.discriminator(real_maps, fake_maps).backward()
    assert all(p.grad is not None for p in disc.parameters())
    assert set(losses.combine.shares) == set(WEIGHTS)
    assert losses.chance == 2.0


@pytest.mark.parametrize("combine", [Weighted, Balancer])
def test_reconstruction_alone_without_discriminators(combine):
    losses, real, fake = build(combine=combine()), waves(0), waves(1).requires_grad_()
    maps = DiscriminatorSet({})(fake)
    found = {**losses.reconstruction(real, fake), **losses.generator(maps, maps)}
    assert set(found) == {"l1", "mel"}
    assert losses.gradient(found, fake).abs().sum() > 0
    assert losses.discriminator(maps, maps) == 0


def test_reconstruction_ends_at_its_step():
    losses = build()
    losses.reconstruction_until = 10
    for step, names in ((9, {"l1", "mel"}), (10, set()), (None, {"l1", "mel"})):
        assert set(losses.reconstruction(waves(0), waves(1), step)) == names


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({k: v for k, v in WEIGHTS.items() if k != "mel"}, "missing for mel"),
        ({k: v for k, v in WEIGHTS.items() if k != "feature"}, "missing for feature"),
        (WEIGHTS | {"stft": 1.0}, "without a loss: stft; valid keys are adversarial, feature, l1, mel"),
    ],
)
def test_weights_that_do_not_fit_the_terms_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        build(weights)
    with pytest.raises(ValueError, match="may not be called feature"):
        Losses({"feature": L1()}, Hinge(), FeatureMatching(), WEIGHTS, Weighted())


def test_only_the_balancer_has_state():
    assert not list(build().parameters())
    assert not build().state_dict()
    assert set(build(combine=Balancer()).state_dict()) == {f"combine.means.{name}" for name in WEIGHTS}
