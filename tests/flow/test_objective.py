"""What is learned: the right answers cost nothing, and only of the codecs that they are for."""

import pytest
import torch

from codec.flow.objective import FlowMatching, NaturalSpeech2, on_path
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ
from codec.quantizers.split_rvq import SplitRVQ
from codec.utils.errors import InputError


def known_quantizer(codebook_dim: int | None, scales: tuple[float, ...] = (30.0, 6.0, 1.5)) -> RVQ:
    """Each level is far finer than the one above, or as ``scales`` say."""
    torch.manual_seed(0)
    quantizer = RVQ(6, 100, n_q=3, codebook_size=8, codebook_dim=codebook_dim, dropout=0.0).eval()
    quantizer.codebooks.copy_(torch.tensor(scales)[:, None, None] * torch.randn(quantizer.codebooks.shape))
    return quantizer


def test_the_velocity_and_the_data_cost_nothing():
    x1, x0, t = torch.randn(3, 4, 7), torch.randn(3, 4, 7), torch.tensor([0.1, 0.5, 0.9])
    flow = FlowMatching()
    torch.testing.assert_close(flow.errors(x1 - x0, x1, x0, t)["velocity"], torch.zeros(3, 7))
    assert float(flow.errors(x1, x1, x0, t)["velocity"].min()) > 0
    ns2 = NaturalSpeech2()
    torch.testing.assert_close(ns2.velocity(x1, on_path(x1, x0, t), t), x1 - x0, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("codebook_dim", [None, 4])
def test_an_estimate_is_held_to_the_codes(codebook_dim):
    """Where each level is far finer than the one above, the sum of the quantized vectors, normalised, costs little, and
    one whose second level is another much, in the second level and below."""
    quantizer, objective = known_quantizer(codebook_dim), NaturalSpeech2()
    codes = torch.randint(8, (2, 3, 5), generator=torch.Generator().manual_seed(1))
    mean, std = torch.randn(6), torch.rand(6) + 0.5
    objective.learn_codes(quantizer, "post", mean, std)

    def latents(codes):
        return (quantizer.decode(codes) - mean[:, None]) / std[:, None]

    with torch.no_grad():
        x1, other = latents(codes), latents(torch.cat([codes[:, :1], (codes[:, 1:2] + 1) % 8, codes[:, 2:]], dim=1))
        right, wrong = (objective.errors(x, x1, x1, torch.ones(2), codes)["codes"] for x in (x1, other))
        for level, book in enumerate(objective.books):
            own = torch.nn.functional.embedding(codes[:, level], book)
            torch.testing.assert_close(own.flatten(0, 1), book[codes[:, level].flatten()])
    assert right.shape == (2, 5)
    assert bool((right < 0.9).all())
    assert bool((wrong > right + 0.5).all())
    assert objective.state_dict() == {}


def test_the_codes_are_those_given_not_those_nearest_to_the_sum():
    """Where no level is finer than another, a sum that is quantized again has other codes. The loss, level by level, by
    its definition."""
    quantizer, objective = known_quantizer(None, (3.0, 3.0, 3.0)), NaturalSpeech2()
    objective.learn_codes(quantizer, "post", torch.zeros(6), torch.ones(6))
    codes = torch.randint(8, (2, 3, 5), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x1 = quantizer.decode(codes)
        found = objective.errors(x1, x1, x1, torch.ones(2), codes)["codes"]
        assert not torch.equal(quantizer.encode(x1), codes)
    for b in range(2):
        for frame in range(5):
            left, expected = x1[b, :, frame], 0.0
            for level, book in enumerate(objective.books):
                distances = torch.stack([(left - vector).norm() for vector in book])
                expected -= torch.log_softmax(-distances, 0)[codes[b, level, frame]] / 3
                left = left - book[codes[b, level, frame]]
            torch.testing.assert_close(found[b, frame], expected)
    with pytest.raises(ValueError, match="the codes of the latents"):
        objective.errors(x1, x1, x1, torch.ones(2))


def test_the_gradient_of_the_codes_leads_to_them():
    quantizer, objective = known_quantizer(None), NaturalSpeech2()
    objective.learn_codes(quantizer, "post", torch.zeros(6), torch.ones(6))
    codes = torch.randint(8, (1, 3, 4))
    x1 = quantizer.decode(codes).detach()
    x = (x1 + 3 * torch.randn(x1.shape)).requires_grad_()
    optimizer, losses = torch.optim.SGD([x], 1.0), []
    for _ in range(50):
        loss = objective.errors(x, x1, x1, torch.ones(1), codes)["codes"].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_other_codecs_are_refused_in_one_sentence():
    split = SplitRVQ(6, 100, 3, 8, 4)
    for quantizer, kind in ((known_quantizer(None), "pre"), (split, "post"), (NoQuantizer(6, 100), "pre")):
        with pytest.raises(InputError, match="objective=ns2 is for sums of quantized vectors"):
            NaturalSpeech2().learn_codes(quantizer, kind, torch.zeros(6), torch.ones(6))
        FlowMatching().learn_codes(quantizer, kind, torch.zeros(6), torch.ones(6))


def test_times():
    u = (torch.arange(1000) + 0.5) / 1000
    assert torch.equal(FlowMatching("uniform").times(u), u)
    t = FlowMatching("logit_normal").times(u)
    logits = t.logit()
    assert float(logits.mean()) == pytest.approx(0, abs=1e-3)
    assert float(logits.std()) == pytest.approx(1, abs=0.01)
    assert bool(((t > 0) & (t < 1)).all())
    ends = FlowMatching("logit_normal").times(torch.tensor([0.0, 1.0]))
    assert bool(((ends > 0) & (ends < 1)).all())
    with pytest.raises(ValueError, match="valid are uniform and logit_normal"):
        FlowMatching("normal")
