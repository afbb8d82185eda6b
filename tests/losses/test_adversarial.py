"""Adversarial losses against values by hand, and feature matching's promises."""

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
        # real: (1 + 0.25) / 2 and 4; fake: (4 + 0.25) / 2 and 1; generator: (9 + 0.25) / 2 and 0
        (LeastSquares(), (0.625 + 2.125 + 4 + 1) / 2, 4.625 / 2),
        (LeastSquares(reduction="sum"), 0.625 + 2.125 + 4 + 1, 4.625),
    ],
)
def test_values_by_hand(loss, discriminator, generator):
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator)
    assert loss.generator(FAKE).item() == pytest.approx(generator)


@pytest.mark.parametrize("loss", [Hinge(), LeastSquares()])
def test_the_two_sides_pull_the_logits_of_fakes_apart(loss):
    fake = [torch.zeros(3, requires_grad=True)]
    fake[0].data += 0.5
    (down,) = torch.autograd.grad(loss.discriminator([torch.zeros(3)], fake), fake, allow_unused=True)
    (up,) = torch.autograd.grad(loss.generator(fake), fake)
    assert (up < 0).all()  # the generator raises them
    assert (down > 0).all()  # the discriminator lowers them


def test_bf16_logits_are_reduced_in_fp32():
    logits = [torch.full((4,), 0.5, dtype=torch.bfloat16)]
    for loss in (Hinge(), LeastSquares()):
        assert loss.generator(logits).dtype == loss.discriminator(logits, logits).dtype == torch.float32


def maps(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [[scale * torch.randn(2, c, 5, generator=generator) for c in (3, 4, 1)] for _ in range(2)]


@pytest.mark.parametrize("normalize", [True, False])
def test_equal_features_cost_nothing_and_logits_do_not_count(normalize):
    real, fake = maps(0), maps(0)
    for one in fake:
        one[-1] = one[-1] + 1
    assert FeatureMatching(normalize)(real, fake) == 0


def test_feature_values_by_hand():
    real = [[torch.tensor([2.0, -2.0]), torch.tensor([4.0]), torch.zeros(1)]]
    fake = [[torch.tensor([1.0, -2.0]), torch.tensor([1.0]), torch.zeros(1)]]
    assert FeatureMatching(normalize=False)(real, fake).item() == pytest.approx((0.5 + 3) / 2)
    assert FeatureMatching(normalize=True)(real, fake).item() == pytest.approx((0.25 + 0.75) / 2)
    assert FeatureMatching(normalize=False, reduction="sum")(real, fake).item() == pytest.approx(3.5)


def test_normalised_features_have_no_scale():
    loss = FeatureMatching(normalize=True)
    torch.testing.assert_close(loss(maps(0, 7.0), maps(1, 7.0)), loss(maps(0), maps(1)))


def test_the_real_side_gets_no_gradient():
    real, fake = ([[one.requires_grad_() for one in each] for each in maps(seed)] for seed in (0, 1))
    FeatureMatching()(real, fake).backward()
    assert all(one.grad is None for each in real for one in each)
    assert all(one.grad.abs().sum() > 0 for each in fake for one in each[:-1])
    assert all(each[-1].grad is None for each in fake)


def test_dead_features_do_not_explode():
    dead = [[torch.zeros(2, 3), torch.zeros(1)]]
    assert FeatureMatching(normalize=True)(dead, dead).isfinite()


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="mean or sum"):
        Hinge(reduction="max")


def matched(rank, parts):
    """The gradient at one process's part of two maps whose examples differ in level."""
    level = torch.tensor([1.0, 0.1, 3.0, 10.0])[parts[rank], None, None]
    real, fake = (level * torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(n))[parts[rank]] for n in (0, 1))
    fake.requires_grad_()
    maps = [[[one, one[:, :1].square(), one] for _ in range(2)] for one in (real, fake)]
    return torch.autograd.grad(FeatureMatching()(*maps), fake)[0]


def test_two_processes_divide_by_the_features_of_the_whole_batch(pair):
    """ddp takes the mean over processes, so each one's gradient is twice what it is in the whole batch."""
    halves = pair(matched, [slice(2), slice(2, 4)])
    torch.testing.assert_close(torch.cat(halves) / 2, matched(0, [slice(4)]))
