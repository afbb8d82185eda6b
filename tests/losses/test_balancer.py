"""From several losses to one gradient."""

import pytest
import torch

from codec.losses.balancer import Balancer, Weighted

WEIGHTS = {"a": 3.0, "b": 1.0}


def leaf(seed=0):
    return torch.randn(4, 1, 50, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def losses(wav, scale=1.0):
    """Two losses whose gradients are orthogonal and of very different size."""
    return {"a": wav[..., :25].square().mean(), "b": scale * 1e-3 * wav[..., 25:].abs().mean()}


def balancer(**options):
    made = Balancer(**options)
    made.prepare(WEIGHTS)
    return made


def norms(grad):
    return grad[..., :25].norm(dim=(1, 2)).mean(), grad[..., 25:].norm(dim=(1, 2)).mean()


def test_weighted_is_the_gradient_of_the_weighted_sum():
    wav = leaf()
    expected = torch.autograd.grad(sum(WEIGHTS[k] * v for k, v in losses(wav).items()), wav)[0]
    torch.testing.assert_close(Weighted()(losses(wav), WEIGHTS, wav), expected)


@pytest.mark.parametrize("combine", [Weighted(), balancer()])
def test_contract(combine):
    """A constant gradient, a surviving graph, shares of all losses; 0 disables a loss, and none may lack a weight."""
    wav = leaf()
    found = losses(wav)
    grad = combine(found, WEIGHTS, wav)
    assert not grad.requires_grad
    assert wav.grad is None
    assert grad.shape == wav.shape
    sum(found.values()).backward()  # raises if the graph was freed
    assert set(combine.shares) == {"a", "b"}
    assert sum(combine.shares.values()).item() == pytest.approx(1)
    assert not combine.shares["a"].requires_grad
    grad = combine(losses(wav), {"a": 1.0, "b": 0.0}, wav)
    assert grad[..., 25:].eq(0).all()
    assert grad[..., :25].ne(0).any()
    assert combine(losses(wav), {"a": 0.0, "b": 0.0}, wav).eq(0).all()
    with pytest.raises(ValueError, match="no weight for c"):
        combine({**losses(wav), "c": wav.mean()}, WEIGHTS, wav)


def test_balanced_norms_are_the_weights():
    combine, wav = balancer(), leaf()
    combine(losses(wav), WEIGHTS, wav)
    assert combine.shares["a"] > 0.9  # of the raw gradients
    for seed in range(20):
        wav = leaf(seed)
        grad = combine(losses(wav), WEIGHTS, wav)
    large, small = norms(grad)
    assert (large / small).item() == pytest.approx(3, rel=0.1)
    assert (large + small).item() == pytest.approx(1, rel=0.1)  # total_norm
    one, five = balancer(), balancer(total_norm=5.0)
    torch.testing.assert_close(5 * one(losses(wav), WEIGHTS, wav), five(losses(wav), WEIGHTS, wav))


@pytest.mark.parametrize("per_item", [True, False])
def test_the_scale_of_a_loss_does_not_matter(per_item):
    one, thousand = balancer(per_item=per_item), balancer(per_item=per_item)
    for seed in range(3):
        wav = leaf(seed)
        a = one(losses(wav), WEIGHTS, wav)
        b = thousand(losses(wav, scale=1000), WEIGHTS, wav)
    torch.testing.assert_close(a, b)


def test_the_running_mean_is_bias_corrected_and_saved():
    combine, seen = balancer(decay=0.5), []
    for seed in range(3):
        wav = leaf(seed)
        seen.append(torch.autograd.grad(losses(wav)["a"], wav)[0].flatten(1).norm(dim=1).mean())
        combine(losses(wav), WEIGHTS, wav)
    total, count = combine.means.a
    torch.testing.assert_close(total / count, (0.25 * seen[0] + 0.5 * seen[1] + seen[2]) / 1.75)
    resumed = balancer(decay=0.5)
    assert set(resumed.state_dict()) == set(combine.state_dict()) == {"means.a", "means.b"}
    resumed.load_state_dict(combine.state_dict())
    assert torch.equal(combine(losses(wav), WEIGHTS, wav), resumed(losses(wav), WEIGHTS, wav))


@pytest.mark.parametrize("absent", ["missing", "zero"])
def test_a_loss_that_starts_late_has_its_share_at_once(absent):
    combine = balancer()
    for seed in range(50):
        wav = leaf(seed)
        found = losses(wav)
        found = {"a": found["a"]} if absent == "missing" else found | {"b": 0 * found["b"]}
        grad = combine(found, WEIGHTS, wav)
        assert grad.isfinite().all()
    if absent == "missing":  # relative to the weights of the present losses
        assert norms(grad)[0].item() == pytest.approx(1, rel=0.1)
    wav = leaf(99)
    large, small = norms(combine(losses(wav), WEIGHTS, wav))
    assert (large / small).item() == pytest.approx(3, rel=0.2)


def audiocraft(found, wav, per_item):
    """Balancer.backward of audiocraft @ 896ec7c in its first step, by its formulas."""
    grads = {name: torch.autograd.grad(loss, wav, retain_graph=True)[0] for name, loss in found.items()}
    norms = {name: g.norm(dim=(1, 2)).mean() if per_item else g.norm() for name, g in grads.items()}
    return sum(WEIGHTS[name] / sum(WEIGHTS.values()) * grads[name] / norms[name] for name in grads)


@pytest.mark.parametrize("per_item", [True, False])
def test_the_gradient_of_weights_is_audiocrafts_at_the_reference_batch_whatever_the_batch(per_item):
    """Of a model with one weight; one and the same clip, repeated."""

    def gradient(clips, combine):
        weight = torch.tensor(0.5, requires_grad=True)
        output = weight * leaf()[:1].detach().expand(clips, -1, -1)
        wav = output.detach().requires_grad_()
        return torch.autograd.grad((output * combine(losses(wav), wav)).sum(), weight)[0]

    theirs = gradient(8, lambda found, wav: audiocraft(found, wav, per_item))
    for clips in (1, 2, 4, 8, 16):
        ours = balancer(per_item=per_item, reference_batch=8)
        torch.testing.assert_close(gradient(clips, lambda found, wav, ours=ours: ours(found, WEIGHTS, wav)), theirs)
    assert not torch.allclose(gradient(4, lambda found, wav: audiocraft(found, wav, per_item)), theirs)


def test_running_means_of_one_batch_size_serve_another():
    small, large = balancer(reference_batch=8), balancer(reference_batch=8)
    small(losses(wav := leaf()), WEIGHTS, wav)
    twice = wav.detach().repeat(2, 1, 1).requires_grad_()
    large(losses(twice), WEIGHTS, twice)
    torch.testing.assert_close(small.state_dict(), large.state_dict())
    with pytest.raises(ValueError, match="reference_batch"):
        balancer(reference_batch=0)


def balanced(rank, part, options):
    """The gradient at this rank's part of a batch of which each example is louder than the one before."""
    loudness = torch.arange(1.0, 5.0)[:, None, None]
    combine, wav = balancer(**options), (leaf().detach() * loudness)[part[rank]].requires_grad_()
    for _ in range(2):
        grad = combine(losses(wav), WEIGHTS, wav)
    return {"grad": grad, **combine.state_dict()}


@pytest.mark.parametrize("reference_batch", [8, None])
@pytest.mark.parametrize("per_item", [True, False])
def test_two_ranks_balance_as_one_with_the_whole_batch(pair, per_item, reference_batch):
    """DDP halves their gradients, so they are twice as long; the running means are the same."""
    options = {"per_item": per_item, "reference_batch": reference_batch}
    first, second = pair(balanced, [slice(2), slice(2, 4)], options)
    alone = balanced(0, [slice(4)], options)
    torch.testing.assert_close(torch.cat([first.pop("grad"), second.pop("grad")]) / 2, alone.pop("grad"))
    for key, value in alone.items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], value)
