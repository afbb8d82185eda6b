"""Adversarial losses and feature matching."""

import pytest
import torch

from codec.losses.adversarial import FeatureMatching, Hinge, LeastSquares

REAL = [torch.tensor([2.0, 0.5]), torch.tensor([[-1.0]])]
FAKE = [torch.tensor([-2.0, 0.5]), torch.tensor([[1.0]])]


@pytest.mark.parametrize(
    ("loss", "discriminator", "generator"),
    [
        # real: (0 + 0.5) / 2 and 2; fake: (0 + 1.5) / 2 and 2; generator: 0.75 and -1
        (Hinge(), (0.25 + 0.75 + 2 + 2) / 2, (0.75 - 1) / 2),
        # generator: (3 + 0.5) / 2 and 0
        (Hinge(clipped=True), (0.25 + 0.75 + 2 + 2) / 2, 1.75 / 2),
        # real: (1 + 0.25) / 2 and 4; fake: (4 + 0.25) / 2 and 1; generator: (9 + 0.25) / 2 and 0
        (LeastSquares(), (0.625 + 2.125 + 4 + 1) / 2, 4.625 / 2),
        (LeastSquares(reduction="sum"), 0.625 + 2.125 + 4 + 1, 4.625),
    ],
)
def test_values_by_hand(loss, discriminator, generator):
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator)
    assert loss.generator(FAKE).item() == pytest.approx(generator)
    low = [torch.full((4,), 0.5, dtype=torch.bfloat16)]
    assert loss.generator(low).dtype == loss.discriminator(low, low).dtype == torch.float32


@pytest.mark.parametrize("loss", [Hinge(), Hinge(clipped=True), LeastSquares()])
def test_generator_raises_and_discriminator_lowers_the_logits_of_fakes(loss):
    fake = [torch.full((3,), 0.5, requires_grad=True)]
    (down,) = torch.autograd.grad(loss.discriminator([torch.zeros(3)], fake), fake)
    (up,) = torch.autograd.grad(loss.generator(fake), fake)
    assert (up < 0).all()
    assert (down > 0).all()


def test_only_the_clipped_hinge_lets_go_of_a_fooled_discriminator():
    fake = torch.tensor([0.5, 1.5], requires_grad=True)
    for loss, gradient in ((Hinge(), [-0.5, -0.5]), (Hinge(clipped=True), [-0.5, 0.0])):
        assert torch.autograd.grad(loss.generator([fake]), fake)[0].tolist() == gradient


def maps(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [[scale * torch.randn(2, c, 5, generator=generator) for c in (3, 4, 1)] for _ in range(2)]


def test_feature_matching_by_hand():
    real = [[torch.tensor([2.0, -2.0]), torch.tensor([4.0]), torch.zeros(1)]]
    fake = [[torch.tensor([1.0, -2.0]), torch.tensor([1.0]), torch.ones(1)]]  # logits do not count
    assert FeatureMatching(normalize=False)(real, fake).item() == pytest.approx((0.5 + 3) / 2)
    assert FeatureMatching(normalize=True)(real, fake).item() == pytest.approx((0.25 + 0.75) / 2)
    assert FeatureMatching(normalize=False, reduction="sum")(real, fake).item() == pytest.approx(3.5)
    assert FeatureMatching()(maps(0), maps(0)) == 0


def test_normalised_features_have_no_scale_and_survive_silence():
    loss, silent = FeatureMatching(normalize=True), [[torch.zeros(2, 3), torch.zeros(1)]]
    torch.testing.assert_close(loss(maps(0, 7.0), maps(1, 7.0)), loss(maps(0), maps(1)))
    assert loss(silent, silent).isfinite()


def test_only_maps_of_fakes_get_the_gradient_of_autograd():
    real, fake = ([[one.requires_grad_() for one in each] for each in maps(seed)] for seed in (0, 1))
    FeatureMatching(normalize=False)(real, fake).backward()
    assert all(one.grad is None for each in real for one in each)
    assert all(each[-1].grad is None for each in fake)
    for r, f in zip(real, fake, strict=True):
        for x, y in zip(r[:-1], f[:-1], strict=True):
            (expected,) = torch.autograd.grad((y - x.detach()).abs().mean() / 4, y)
            torch.testing.assert_close(y.grad, expected)


def test_unknown_reduction_is_refused():
    for make in (Hinge, FeatureMatching):
        with pytest.raises(ValueError, match="mean or sum"):
            make(reduction="max")


def matched(rank, parts):
    """The gradient at one rank's part of two maps whose examples differ in level."""
    level = torch.tensor([1.0, 0.1, 3.0, 10.0])[parts[rank], None, None]
    real, fake = (level * torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(n))[parts[rank]] for n in (0, 1))
    fake.requires_grad_()
    both = [[[one, one[:, :1].square(), one] for _ in range(2)] for one in (real, fake)]
    return torch.autograd.grad(FeatureMatching()(*both), fake)[0]


def test_two_ranks_normalise_by_the_whole_batch(pair):
    """DDP takes the mean over ranks, so each one's gradient is twice that of the whole batch."""
    halves = pair(matched, [slice(2), slice(2, 4)])
    torch.testing.assert_close(torch.cat(halves) / 2, matched(0, [slice(4)]))
