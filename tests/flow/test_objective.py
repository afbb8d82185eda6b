"""Objectives: exact predictions cost nothing, codes are those given, and unsuitable codecs are refused."""

import pytest
import torch

from codec.flow.objective import FlowMatching, NaturalSpeech2, on_path
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ
from codec.quantizers.split_rvq import SplitRVQ
from codec.utils.errors import InputError


def known_quantizer(codebook_dim: int | None, scales: tuple[float, ...] = (30.0, 6.0, 1.5)) -> RVQ:
    """By default each level is far finer than the one above."""
    torch.manual_seed(0)
    quantizer = RVQ(6, 100, n_q=3, codebook_size=8, codebook_dim=codebook_dim, dropout=0.0).eval()
    quantizer.codebooks.copy_(torch.tensor(scales)[:, None, None] * torch.randn(quantizer.codebooks.shape))
    return quantizer


def test_exact_predictions_of_velocity_and_data_cost_nothing():
    x1, x0, t = torch.randn(3, 4, 7), torch.randn(3, 4, 7), torch.tensor([0.1, 0.5, 0.9])
    flow = FlowMatching()
    torch.testing.assert_close(flow.errors(x1 - x0, x1, x0, t)["velocity"], torch.zeros(3, 7))
    assert float(flow.errors(x1, x1, x0, t)["velocity"].min()) > 0
    torch.testing.assert_close(NaturalSpeech2().velocity(x1, on_path(x1, x0, t), t), x1 - x0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("codebook_dim", [None, 4])
def test_the_codes_of_the_latents_cost_least(codebook_dim):
    """Where each level is far finer than the one above, another code in the second level costs much."""
    quantizer, objective = known_quantizer(codebook_dim), NaturalSpeech2()
    codes = torch.randint(8, (2, 3, 5), generator=torch.Generator().manual_seed(1))
    mean, std = torch.randn(6), torch.rand(6) + 0.5
    objective.set_codebooks(quantizer, "post", mean, std)

    def latents(codes):
        return (quantizer.decode(codes) - mean[:, None]) / std[:, None]

    with torch.no_grad():
        x1, other = latents(codes), latents(torch.cat([codes[:, :1], (codes[:, 1:2] + 1) % 8, codes[:, 2:]], dim=1))
        right, wrong = (objective.errors(x, x1, x1, torch.ones(2), codes)["codes"] for x in (x1, other))
    assert right.shape == (2, 5)
    assert bool((right < 0.9).all())
    assert bool((wrong > right + 0.5).all())
    assert objective.state_dict() == {}


def test_the_cross_entropy_of_given_codes_by_its_definition_and_its_gradient():
    """Where no level is finer than another, quantizing the sum again would give other codes."""
    quantizer, objective = known_quantizer(None, (3.0, 3.0, 3.0)), NaturalSpeech2()
    objective.set_codebooks(quantizer, "post", torch.zeros(6), torch.ones(6))
    codes = torch.randint(8, (2, 3, 5), generator=torch.Generator().manual_seed(1))
    x1 = quantizer.decode(codes).detach()
    assert not torch.equal(quantizer.encode(x1), codes)
    found = objective.errors(x1, x1, x1, torch.ones(2), codes)["codes"]
    residual, expected = x1.transpose(1, 2), 0.0
    for level, book in enumerate(objective.books):
        log_p = torch.log_softmax(-(residual[:, :, None] - book).norm(dim=-1), -1)  # [B, F, S]
        expected = expected - log_p.gather(-1, codes[:, level, :, None])[..., 0] / 3
        residual = residual - book[codes[:, level]]
    torch.testing.assert_close(found, expected)
    x = (x1 + 3 * torch.randn(x1.shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(objective.errors(x, x1, x1, torch.ones(2), codes)["codes"].sum(), x)
    with torch.no_grad():
        before, after = (objective.errors(y, x1, x1, torch.ones(2), codes)["codes"].sum() for y in (x, x - gradient))
    assert after < before
    with pytest.raises(ValueError, match="codes of the latents"):
        objective.errors(x1, x1, x1, torch.ones(2))


def test_ns2_is_refused_for_other_codecs():
    others = (known_quantizer(None), "pre"), (SplitRVQ(6, 100, 3, 8, 4), "post"), (NoQuantizer(6, 100), "pre")
    for quantizer, kind in others:
        with pytest.raises(InputError, match="sums of quantized vectors"):
            NaturalSpeech2().set_codebooks(quantizer, kind, torch.zeros(6), torch.ones(6))
        FlowMatching().set_codebooks(quantizer, kind, torch.zeros(6), torch.ones(6))


def test_times_are_uniform_or_logit_normal_and_never_0_or_1():
    u = (torch.arange(1000) + 0.5) / 1000
    assert torch.equal(FlowMatching("uniform").times(u), u)
    logits = FlowMatching("logit_normal").times(u).logit()
    assert float(logits.mean()) == pytest.approx(0, abs=1e-3)
    assert float(logits.std()) == pytest.approx(1, abs=0.01)
    ends = [FlowMatching(time).times(torch.tensor([0.0, 1.0])) for time in ("uniform", "logit_normal")]
    assert all(bool(((pair > 0) & (pair < 1)).all()) for pair in ends)
    with pytest.raises(ValueError, match="uniform and logit_normal"):
        FlowMatching("normal")
