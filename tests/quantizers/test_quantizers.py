"""What every quantizer promises, and what each one is."""

import math

import pytest
import torch

from codec.quantizers.base import codebook_statistics, dropout_mask
from codec.quantizers.fsq import FSQ
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ, kmeans

DISCRETE = {
    "rvq": lambda: RVQ(8, 50, n_q=4, codebook_size=32),
    "rvq projected": lambda: RVQ(8, 50, n_q=4, codebook_size=32, codebook_dim=3),
    "fsq": lambda: FSQ(8, 50, levels=[4, 3, 3], n_q=1),
    "residual fsq": lambda: FSQ(8, 50, levels=[4, 3, 3], n_q=4),
}


def trained(make, steps=30, seed=0):
    torch.manual_seed(seed)
    quantizer = make().train()
    for _ in range(steps):
        quantizer(torch.randn(8, 8, 25))
    return quantizer.eval()


@pytest.mark.parametrize("name", DISCRETE)
def test_codes_are_the_whole_story(name):
    quantizer = trained(DISCRETE[name])
    z = torch.randn(3, 8, 10)
    with torch.no_grad():
        for n_q in range(1, quantizer.n_q + 1):
            out = quantizer(z, n_q)
            codes = quantizer.encode(z, n_q)
            assert codes.shape == (3, n_q, 10)
            assert codes.dtype == torch.int64
            assert torch.equal(codes, out.codes)
            assert torch.equal(codes, quantizer.encode(z)[:, :n_q])  # a prefix is a coarser version
            torch.testing.assert_close(quantizer.decode(codes), out.z, atol=1e-5, rtol=0)
            assert int(codes.min()) >= 0
            assert int(codes.max()) < quantizer.codebook_size
            assert quantizer.bitrate(n_q) == pytest.approx(n_q * math.log2(quantizer.codebook_size) * 50 / 1000)


@pytest.mark.parametrize("name", ["rvq", "residual fsq"])
def test_more_codebooks_come_closer(name):
    quantizer = trained(DISCRETE[name])
    z = torch.randn(8, 8, 50)
    with torch.no_grad():
        x = torch.tanh(quantizer.project_in(z)) if "fsq" in name else z
        target = quantizer.project_out(x)
        errors = [float((quantizer(z, n).z - target).square().mean()) for n in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize("name", DISCRETE)
def test_wrong_number_of_codebooks_is_refused(name):
    quantizer = DISCRETE[name]()
    for n_q in (0, quantizer.n_q + 1):
        with pytest.raises(ValueError, match=f"n_q={n_q}, but the quantizer has {quantizer.n_q} codebooks"):
            quantizer(torch.zeros(1, 8, 3), n_q)


@pytest.mark.parametrize("name", DISCRETE)
def test_state_stays_fp32_under_autocast(name):
    torch.manual_seed(0)
    quantizer = DISCRETE[name]().train()
    with torch.autocast("cpu", torch.bfloat16):
        out = quantizer(torch.randn(4, 8, 30).bfloat16())
    assert out.z.dtype == torch.float32
    assert out.loss.dtype == torch.float32
    assert all(b.dtype != torch.bfloat16 for b in quantizer.buffers())
    reference = quantizer.eval().encode(torch.ones(1, 8, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(torch.ones(1, 8, 2)), reference)


def test_straight_through_gradient_is_one():
    quantizer = RVQ(8, 50, n_q=4, codebook_size=32, dropout=0.0).train()
    z = torch.randn(2, 8, 40, requires_grad=True)
    weight = torch.randn(2, 8, 40)
    (quantizer(z).z * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight)


def test_commitment_pulls_latents_to_their_codes():
    torch.manual_seed(0)
    quantizer = RVQ(8, 50, n_q=1, codebook_size=4, dropout=0.0).train()
    z = torch.randn(2, 8, 40, requires_grad=True)
    out = quantizer(z)
    out.loss.backward()
    torch.testing.assert_close(z.grad, 2 * (z - out.z).detach() / z.numel())
    torch.testing.assert_close(out.loss, (z - out.z).square().mean())


def test_moving_averages_follow_their_definition():
    torch.manual_seed(0)
    quantizer = RVQ(3, 50, n_q=1, codebook_size=4, dropout=0.0, decay=0.9, check_every=0).train()
    quantizer(torch.randn(4, 3, 50))
    usage, sums, book = quantizer.usage.clone(), quantizer.sums.clone(), quantizer.codebooks.clone()
    z = torch.randn(4, 3, 50)
    out = quantizer(z)
    vectors, codes = z.transpose(1, 2).flatten(0, 1), out.codes.flatten()
    assert torch.equal(codes, torch.cdist(vectors, book[0]).argmin(-1))
    for s in range(4):
        mine = vectors[codes == s]
        torch.testing.assert_close(quantizer.usage[0, s], 0.9 * usage[0, s] + 0.1 * len(mine))
        torch.testing.assert_close(quantizer.sums[0, s], 0.9 * sums[0, s] + 0.1 * mine.sum(0))
        torch.testing.assert_close(quantizer.codebooks[0, s], quantizer.sums[0, s] / quantizer.usage[0, s])


def test_kmeans_finds_separate_clusters_and_survives_few_vectors():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = (centres[:, None] + 0.1 * torch.randn(3, 60, 2)).flatten(0, 1)
    best = min((kmeans(x, 3, 20) for _ in range(5)), key=lambda r: torch.cdist(x, r[0]).min(1).values.sum())
    assert torch.cdist(centres, best[0]).min(1).values.max() < 0.1
    assert best[1].tolist() == [60, 60, 60]
    means, sizes = kmeans(torch.randn(3, 2), 8, 5)
    assert means.isfinite().all()
    assert sizes.sum() == 3
    assert kmeans(torch.ones(1, 2), 4, 5)[0].isfinite().all()


def test_dead_codes_come_back():
    """Codes far from all data are never used; the restart gives them vectors of the data."""
    torch.manual_seed(0)
    quantizer = RVQ(4, 50, n_q=2, codebook_size=16, dropout=0.0).train()
    quantizer(torch.randn(8, 4, 50))
    with torch.no_grad():
        for buffer in (quantizer.codebooks, quantizer.sums):
            buffer[:, 4:] += 1e3
    for _ in range(600):  # the moving average of usage must first fall below the threshold: 0.99 ** 230 = 0.1
        quantizer(torch.randn(8, 4, 50))
    used = torch.stack(
        [torch.bincount(c.flatten(), minlength=16) for c in quantizer(torch.randn(32, 4, 50)).codes.unbind(1)]
    )
    assert (used > 0).all()
    assert quantizer.codebooks.abs().max() < 20


def test_deep_levels_come_alive_though_the_first_batch_is_small():
    """With fewer vectors than codes, level 1 copies them and leaves nothing for the levels below to start from."""
    torch.manual_seed(0)
    quantizer = RVQ(4, 50, n_q=3, codebook_size=64, dropout=0.0).train()
    for _ in range(30):
        quantizer(torch.randn(2, 4, 10))
    assert all(len(book.unique(dim=0)) > 48 for book in quantizer.codebooks)


def test_dropout_is_honest():
    mask = dropout_mask(20_000, 4, 1.0, torch.device("cpu"))
    assert mask[0].all()
    torch.testing.assert_close(mask.float().mean(1), torch.tensor([1.0, 0.75, 0.5, 0.25]), atol=0.02, rtol=0)
    half = dropout_mask(20_000, 4, 0.5, torch.device("cpu")).float().mean(1)
    torch.testing.assert_close(half, torch.tensor([1.0, 0.875, 0.75, 0.625]), atol=0.02, rtol=0)
    assert dropout_mask(10, 4, 0.0, torch.device("cpu")).all()


def test_dropped_levels_learn_nothing_and_add_nothing(monkeypatch):
    torch.manual_seed(0)
    quantizer = RVQ(8, 50, n_q=3, codebook_size=8, check_every=0).train()
    quantizer(torch.randn(8, 8, 50))
    mask = torch.tensor([[True, True], [True, False], [False, False]])  # [K, B]
    monkeypatch.setattr("codec.quantizers.rvq.dropout_mask", lambda *_: mask)
    usage, book = quantizer.usage.clone(), quantizer.codebooks.clone()
    z = torch.randn(2, 8, 50)
    out = quantizer(z)
    first = book[0][out.codes[1, 0]]  # example 1 used one level only
    torch.testing.assert_close(out.z[1].t(), first)
    torch.testing.assert_close(out.z[0].t(), book[0][out.codes[0, 0]] + book[1][out.codes[0, 1]])
    torch.testing.assert_close(quantizer.usage[1].sum(), 0.99 * usage[1].sum() + 0.01 * 50)
    torch.testing.assert_close(quantizer.usage[2], 0.99 * usage[2])
    torch.testing.assert_close(quantizer.codebooks[2], book[2])


def test_nothing_learns_in_eval_mode():
    quantizer = trained(DISCRETE["rvq"])
    before = {k: v.clone() for k, v in quantizer.named_buffers()}
    quantizer(torch.randn(2, 8, 10))
    assert all(torch.equal(before[k], v) for k, v in quantizer.named_buffers())


def test_statistics_against_hand_values():
    counts = torch.tensor([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    out = codebook_statistics(counts)
    torch.testing.assert_close(out["entropy"], torch.tensor([2.0, 0.0, 1.5, 0.0]))
    torch.testing.assert_close(out["usage"], torch.tensor([1.0, 0.25, 0.75, 0.0]))
    torch.testing.assert_close(out["perplexity"], torch.tensor([4.0, 1.0, 2**1.5, 1.0]))


def test_entropy_bitrate_never_exceeds_nominal():
    quantizer = RVQ(8, 50, n_q=4, codebook_size=32).train()
    for _ in range(10):
        metrics = quantizer(torch.randn(8, 8, 25)).metrics
    assert 0 < float(metrics["entropy_kbps"]) <= quantizer.bitrate() + 1e-6


def test_fsq_levels_cover_the_range():
    quantizer = FSQ(2, 50, levels=[5, 4])
    values = quantizer.decode(torch.arange(20)[None, None])  # every code once
    assert len({tuple(v) for v in values[0].t().detach().round(decimals=5).tolist()}) == 20


def test_no_quantizer_passes_everything():
    quantizer = NoQuantizer(8, 50)
    z = torch.randn(1, 8, 5)
    out = quantizer(z)
    assert torch.equal(out.z, z)
    assert out.codes is None
    assert math.isnan(quantizer.bitrate())
    with pytest.raises(ValueError, match="continuous"):
        quantizer.encode(z)
    with pytest.raises(ValueError, match="has no codebooks"):
        quantizer(z, 2)
