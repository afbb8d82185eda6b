"""The contract of discrete quantizers, and the definitions of RVQ and FSQ."""

import math

import numpy as np
import pytest
import torch

from bench.entropy import SHARES, chao_wang_jost, errors, plug_in
from codec.quantizers.base import codebook_statistics, dropout_mask, unquantized_mask
from codec.quantizers.fsq import FSQ
from codec.quantizers.rvq import RVQ, kmeans
from codec.quantizers.sigma_vae import SigmaVAE
from codec.quantizers.split_rvq import SplitRVQ
from codec.quantizers.vae import VAE

CPU = torch.device("cpu")
DISCRETE = {
    "rvq": lambda: RVQ(8, 50, n_q=4, codebook_size=32, kmeans_iters=5),
    "rvq projected": lambda: RVQ(8, 50, n_q=4, codebook_size=32, codebook_dim=3, kmeans_iters=5),
    "split rvq": lambda: SplitRVQ(8, 50, n_q=4, codebook_size=32, codebook_dim=3, kmeans_iters=5),
    "fsq": lambda: FSQ(8, 50, levels=[4, 3, 3], n_q=1),
    "residual fsq": lambda: FSQ(8, 50, levels=[4, 3, 3], n_q=4),
}
CONTINUOUS = {"vae": lambda: VAE(8, 50, channels=3), "sigma_vae": lambda: SigmaVAE(8, 50, channels=3)}


def trained(make, steps=20, seed=0):
    torch.manual_seed(seed)
    quantizer = make().train()
    for _ in range(steps):
        quantizer(torch.randn(8, 8, 25))
    return quantizer.eval()


@pytest.mark.parametrize("name", DISCRETE)
def test_codes_determine_the_output_and_a_prefix_is_coarser(name):
    quantizer = trained(DISCRETE[name])
    z = torch.randn(3, 8, 10)
    before = {k: v.clone() for k, v in quantizer.named_buffers()}
    with torch.no_grad():
        for n_q in range(1, quantizer.n_q + 1):
            out = quantizer(z, n_q)
            codes = quantizer.encode(z, n_q)
            assert codes.shape == (3, n_q, 10)
            assert codes.dtype == torch.int64
            assert torch.equal(codes, out.codes)
            assert torch.equal(codes, quantizer.encode(z)[:, :n_q])
            torch.testing.assert_close(quantizer.decode(codes), out.z, atol=1e-5, rtol=0)
            assert 0 <= int(codes.min()) <= int(codes.max()) < quantizer.codebook_size
            assert quantizer.bitrate(n_q) == pytest.approx(n_q * math.log2(quantizer.codebook_size) * 50 / 1000)
    assert all(torch.equal(before[k], v) for k, v in quantizer.named_buffers())  # nothing learns in eval mode
    for n_q in (0, quantizer.n_q + 1):
        with pytest.raises(ValueError, match=f"n_q={n_q}, but the quantizer has {quantizer.n_q} codebooks"):
            quantizer(torch.zeros(1, 8, 3), n_q)


@pytest.mark.parametrize("name", ["rvq", "residual fsq"])
def test_more_codebooks_come_closer(name):
    quantizer = trained(DISCRETE[name])
    z = torch.randn(8, 8, 50)
    with torch.no_grad():
        target = quantizer.from_latents(z)
        errors = [float((quantizer(z, n).z - target).square().mean()) for n in range(1, 5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize("name", DISCRETE | CONTINUOUS)
def test_computation_is_in_fp32_under_autocast(name):
    torch.manual_seed(0)
    quantizer = (DISCRETE | CONTINUOUS)[name]().train()
    with torch.autocast("cpu", torch.bfloat16):
        out = quantizer(torch.randn(4, 8, 30).bfloat16())
    assert out.z.dtype == out.loss.dtype == torch.float32
    assert all(b.dtype != torch.bfloat16 for b in quantizer.buffers())
    if name in DISCRETE:
        expected = quantizer.eval().encode(torch.ones(1, 8, 2))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(quantizer.encode(torch.ones(1, 8, 2)), expected)


def test_straight_through_and_commitment_gradients():
    torch.manual_seed(0)
    quantizer = RVQ(8, 50, n_q=4, codebook_size=32, dropout=0.0).train()
    z, weight = torch.randn(2, 8, 40, requires_grad=True), torch.randn(2, 8, 40)
    (quantizer(z).z * weight).sum().backward()
    torch.testing.assert_close(z.grad, weight)
    quantizer = RVQ(8, 50, n_q=1, codebook_size=4, dropout=0.0).train()
    z.grad = None
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


def test_dead_codes_are_replaced():
    """Codes far from all data are never used; the restart gives them vectors of the data."""
    torch.manual_seed(0)
    quantizer = RVQ(4, 50, n_q=2, codebook_size=16, dropout=0.0, decay=0.9, kmeans_iters=5).train()
    quantizer(torch.randn(8, 4, 50))
    with torch.no_grad():
        for buffer in (quantizer.codebooks, quantizer.sums):
            buffer[:, 4:] += 1e3
    for _ in range(80):  # usage must first fall below the threshold
        quantizer(torch.randn(8, 4, 50))
    codes = quantizer(torch.randn(32, 4, 50)).codes
    assert all(len(level.unique()) == 16 for level in codes.unbind(1))
    assert quantizer.codebooks.abs().max() < 20


def test_deep_levels_are_used_though_the_first_batch_is_small():
    """With fewer vectors than codes, level 1 copies them, and the residuals of the levels below are 0."""
    torch.manual_seed(0)
    quantizer = RVQ(4, 50, n_q=3, codebook_size=64, dropout=0.0).train()
    for _ in range(30):
        quantizer(torch.randn(2, 4, 10))
    assert all(len(book.unique(dim=0)) > 48 for book in quantizer.codebooks)


def test_masks_have_their_rates():
    mask = dropout_mask(20_000, 4, 1.0, CPU)
    torch.testing.assert_close(mask.float().mean(1), torch.tensor([1.0, 0.75, 0.5, 0.25]), atol=0.02, rtol=0)
    half = dropout_mask(20_000, 4, 0.5, CPU).float().mean(1)
    torch.testing.assert_close(half, torch.tensor([1.0, 0.875, 0.75, 0.625]), atol=0.02, rtol=0)
    some = dropout_mask(20_000, 8, 1.0, CPU, [2, 4, 16]).sum(0)
    assert set(some.tolist()) == {2, 4}
    assert abs(float((some == 2).float().mean()) - 0.5) < 0.02
    assert dropout_mask(10, 4, 0.0, CPU).all()
    assert not unquantized_mask(10, 1.0, CPU).any()
    assert unquantized_mask(10, 0.0, CPU).all()
    assert abs(float(unquantized_mask(20_000, 0.3, CPU).float().mean()) - 0.7) < 0.02


def test_an_rvq_draws_among_the_bitrates_of_encodec():
    torch.manual_seed(0)
    quantizer = RVQ(4, 75, n_q=8, codebook_size=4, kmeans_iters=2, dropout_choices=[2, 4, 32]).train()
    z = torch.randn(64, 4, 2)
    quantizer(z)
    quantizer.check_every, quantizer.decay, books = 0, 1.0, quantizer.codebooks.clone()
    out = quantizer(z)
    parts = torch.stack([books[k][out.codes[:, k]] for k in range(8)])  # [K, B, F, C]
    distances = (parts.cumsum(0) - out.z.transpose(1, 2)).abs().amax((2, 3))  # [K, B], 0 where so many are used
    assert set((1 + distances.argmin(0)).tolist()) == {2, 4}
    for wrong in ([0], [0, 2]):
        with pytest.raises(ValueError, match="dropout_choices"):
            RVQ(4, 75, dropout_choices=wrong)


def test_dropped_levels_learn_nothing_and_add_nothing():
    torch.manual_seed(0)
    quantizer = RVQ(8, 50, n_q=3, codebook_size=8, check_every=0).train()
    quantizer(torch.randn(8, 8, 50))
    usage, book = quantizer.usage.clone(), quantizer.codebooks.clone()
    active = torch.tensor([[True, True], [True, False], [False, False]])  # [K, B]
    out = quantizer(torch.randn(2, 8, 50), active=active)
    torch.testing.assert_close(out.z[1].t(), book[0][out.codes[1, 0]])
    torch.testing.assert_close(out.z[0].t(), book[0][out.codes[0, 0]] + book[1][out.codes[0, 1]])
    torch.testing.assert_close(quantizer.usage[1].sum(), 0.99 * usage[1].sum() + 0.01 * 50)
    torch.testing.assert_close(quantizer.usage[2], 0.99 * usage[2])
    torch.testing.assert_close(quantizer.codebooks[2], book[2])


def test_semantic_output_and_quantization_rate_of_an_rvq():
    torch.manual_seed(0)
    rvq = RVQ(8, 12.5, n_q=3, codebook_size=16, quantization_rate=0.5)
    z = torch.randn(1000, 8, 4)
    rvq(z)
    books = rvq.codebooks.clone()
    out = rvq(z)
    torch.testing.assert_close(out.semantic, books[0][out.codes[:, 0]].transpose(1, 2), atol=1e-5, rtol=1e-5)
    unquantized = (out.z - z).abs().amax((1, 2)) < 1e-5
    assert abs(float(unquantized.float().mean()) - 0.5) < 0.07
    assert rvq.eval()(z).semantic is None


def test_statistics_by_hand_and_entropy_bitrate():
    counts = torch.tensor([[1.0, 1.0, 1.0, 1.0], [4.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    out = codebook_statistics(10_000 * counts)  # so many frames need no correction
    torch.testing.assert_close(out["entropy"], torch.tensor([2.0, 0.0, 1.5, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(out["usage"], torch.tensor([1.0, 0.25, 0.75, 0.0]))
    torch.testing.assert_close(out["perplexity"], torch.tensor([4.0, 1.0, 2**1.5, 1.0]), atol=1e-3, rtol=0)
    quantizer = trained(DISCRETE["rvq"])
    assert 0 < float(quantizer.metrics()["entropy_kbps"]) <= quantizer.bitrate() + 1e-6


@pytest.mark.parametrize("codes", ["uniform", "Zipf", "half unused"])
def test_entropy_of_few_frames_is_hardly_biased(codes):
    """2,048 codes in 2,500 frames, of which the shares of the codes seen miss half a bit."""
    found, plain = (errors(estimator, SHARES[codes], 2500) for estimator in (chao_wang_jost, plug_in))
    assert abs(found.mean()) < 0.1
    assert np.abs(found).mean() < 0.3 * np.abs(plain).mean()


def test_usage_is_beside_that_of_uniform_codes_in_as_many_frames():
    generator = np.random.default_rng(0)
    counts = torch.from_numpy(np.stack([generator.multinomial(n, np.full(2048, 1 / 2048)) for n in (2500, 20_000)]))
    found = codebook_statistics(counts.float())
    assert found["frames"].tolist() == [2500, 20_000]
    assert found["uniform_usage"].tolist() == pytest.approx([1 - (2047 / 2048) ** n for n in (2500, 20_000)], abs=1e-3)
    torch.testing.assert_close(found["usage"], found["uniform_usage"], atol=0.02, rtol=0)


def test_frames_behind_the_moving_averages_of_a_training():
    """Those of the first step, from k-means; later those of about 199 steps, by a decay of 0.99."""
    quantizer = RVQ(8, 50, n_q=2, codebook_size=8, dropout=0.0).train()
    metrics = quantizer(torch.randn(4, 8, 25)).metrics
    assert float(metrics["frames"]) == pytest.approx(100, rel=0.03)
    quantizer.steps = 10_000
    assert float(quantizer.metrics()["frames"]) == pytest.approx(19_900, rel=0.01)
    assert 0 < float(metrics["uniform_usage"]) <= 1


def test_fsq_codes_are_distinct_levels():
    values = FSQ(2, 50, levels=[5, 4]).decode(torch.arange(20)[None, None])  # every code once
    assert len({tuple(v) for v in values[0].t().detach().round(decimals=5).tolist()}) == 20


@pytest.mark.parametrize("frozen", [False, True])
def test_a_wide_beam_finds_the_best_codes(frozen):
    """Of three codebooks of four codes, a beam of 16 paths keeps all of them: the search is exhaustive."""
    torch.manual_seed(0)
    rvq = RVQ(5, 50, n_q=3, codebook_size=4).eval()
    z = torch.randn(2, 5, 7)
    if frozen:
        rvq.precompute()
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)  # [64, 3]
    sums = rvq.decode(every.t()[None])[0]  # [5, 64]
    best = every[torch.cdist(z.transpose(1, 2), sums.t()[None]).argmin(-1)].transpose(1, 2)
    greedy = (rvq.decode(rvq.encode(z)) - z).square().sum()
    rvq.beam = 16
    codes = rvq.encode(z)
    assert torch.equal(codes, best)
    assert torch.equal(rvq(z).codes, codes)
    torch.testing.assert_close(rvq(z).z, rvq.decode(codes))
    assert (rvq.decode(codes) - z).square().sum() < greedy
    rvq.beam = 1
    assert torch.equal(rvq.encode(z), rvq(z).codes)
