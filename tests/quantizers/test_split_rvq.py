"""The split quantizer, and quantization of only a share of the sequences."""

import math

import pytest
import torch

from codec.quantizers.base import unquantized_mask
from codec.quantizers.rvq import RVQ
from codec.quantizers.split_rvq import SplitRVQ
from tests.helpers.parts import count

F = 50


def split(**changes) -> SplitRVQ:
    torch.manual_seed(0)
    options = dict(dim=8, frame_rate=12.5, n_q=4, codebook_size=16, codebook_dim=4, dropout=0.0, quantization_rate=1.0)
    return SplitRVQ(**{**options, **changes})


def trained(quantizer, batch: int = 16) -> tuple[SplitRVQ, torch.Tensor]:
    z = torch.randn(batch, 8, F, generator=torch.Generator().manual_seed(1))
    for _ in range(10):
        quantizer.train()(z)
    return quantizer, z


def test_parameters_and_buffers_of_mimi():
    quantizer = SplitRVQ(512, 12.5, n_q=32)
    assert count(quantizer) == 524_288
    buffers = sum(b.numel() for name, b in quantizer.named_buffers() if "codebooks" not in name)
    assert buffers == 32 * (2048 * 256 + 2048)  # and in Kyutai's file one flag for each codebook
    assert SplitRVQ(512, 12.5).bitrate() == pytest.approx(1.1)
    assert quantizer.bitrate() == pytest.approx(4.4)


def test_both_parts_read_the_same_latent_and_their_outputs_are_added():
    quantizer, z = trained(split())
    quantizer.eval()
    out = quantizer(z)
    semantic, acoustic = quantizer.semantic(z), quantizer.acoustic(z)
    torch.testing.assert_close(out.z, semantic.z + acoustic.z)
    assert torch.equal(out.codes, torch.cat([semantic.codes, acoustic.codes], 1))
    assert torch.equal(out.codes, quantizer.encode(z))
    torch.testing.assert_close(quantizer.decode(out.codes), out.z, atol=1e-5, rtol=1e-5)
    for n_q in (1, 2, 4):
        assert torch.equal(quantizer.encode(z, n_q), out.codes[:, :n_q])
        torch.testing.assert_close(quantizer(z, n_q).z, quantizer.decode(out.codes[:, :n_q]), atol=1e-5, rtol=1e-5)


def test_every_codebook_commits_with_equal_weight():
    quantizer, z = trained(split())
    out = quantizer(z)
    quantizer, _ = trained(split())
    semantic, acoustic = quantizer.semantic(z), quantizer.acoustic(z, active=torch.ones(3, 16, dtype=torch.bool))
    torch.testing.assert_close(out.loss, (semantic.loss + 3 * acoustic.loss) / 4)
    assert {"usage/1", "usage/4", "perplexity/2", "entropy_kbps"} <= out.metrics.keys()
    assert "usage/5" not in out.metrics
    total = sum(out.metrics[f"entropy/{k}"] for k in range(1, 5)) * 12.5 / 1000
    torch.testing.assert_close(out.metrics["entropy_kbps"], total)


def test_semantic_codebook_is_never_dropped():
    quantizer, z = trained(split(dropout=1.0), batch=400)
    with torch.no_grad():
        out = quantizer(z)
        quantizer.eval()
        semantic = quantizer.semantic(z).z
        each = [quantizer(z, n).z for n in range(1, 5)]
    levels = torch.stack([(out.z - one).abs().amax((1, 2)) < 1e-5 for one in each])  # [4, B]
    share = levels.float().mean(1)
    assert float(share[0]) == 0.0  # at least one acoustic codebook
    assert all(0.25 < float(s) < 0.42 for s in share[1:])
    assert not torch.allclose(out.z, semantic)


def continuous(quantizer, z) -> torch.Tensor:
    parts = (quantizer.semantic, quantizer.acoustic)
    return torch.stack([part.project_out(part.project_in(z)) for part in parts])


@pytest.mark.parametrize(
    ("masks", "shares"), [("shared", (0.5, 0.5, 0.0, 0.0)), ("independent", (0.25, 0.25, 0.25, 0.25))]
)
def test_who_is_quantized(masks, shares):
    """A sequence reaches the decoder as continuous latents as a whole (the paper), or part by part (the code)."""
    quantizer, z = trained(split(quantization_rate=0.5, masks=masks), batch=1000)
    with torch.no_grad():
        out = quantizer(z).z
        free = continuous(quantizer, z)
        quantizer.eval()
        bound = torch.stack([quantizer.semantic(z).z, quantizer.acoustic(z).z])
    near = lambda y: (out - y).abs().amax((1, 2)) < 1e-5  # noqa: E731
    kinds = [free[0] + free[1], bound[0] + bound[1], free[0] + bound[1], bound[0] + free[1]]
    found = torch.stack([near(kind) for kind in kinds]).float()
    assert found.sum(0).eq(1).all()  # whole sequences, nothing in between
    for share, expected in zip(found.mean(1), shares, strict=True):
        assert abs(float(share) - expected) < 4 * math.sqrt(0.25 / 1000)


def test_sequences_that_pass_still_move_the_codebooks():
    quantizer, z = trained(split(quantization_rate=0.0))
    before = quantizer.semantic.codebooks.clone()
    out = quantizer(z + 1.0)
    torch.testing.assert_close(out.z, continuous(quantizer, z + 1.0).sum(0), atol=1e-5, rtol=1e-5)
    assert float((quantizer.semantic.codebooks - before).abs().max()) > 1e-3
    assert float(out.loss) > 0
    assert torch.equal(quantizer.eval()(z).codes, quantizer.encode(z))


def test_semantic_is_the_first_code_whatever_the_masks_say():
    quantizer, z = trained(split(quantization_rate=0.0, dropout=1.0))
    z = z.requires_grad_()
    out = quantizer(z)
    old = trained(split(quantization_rate=0.0, dropout=1.0))[0]
    value = old.semantic.project_out(old.semantic.codebooks[0][out.codes[:, 0]].transpose(1, 2))
    torch.testing.assert_close(out.semantic, value, atol=1e-5, rtol=1e-5)
    out.semantic.sum().backward()
    through = quantizer.semantic.project_in.weight[..., 0].t() @ quantizer.semantic.project_out.weight[..., 0].t().sum(
        1
    )
    torch.testing.assert_close(z.grad, through[None, :, None].expand_as(z), atol=1e-5, rtol=1e-5)


def test_semantic_of_a_plain_rvq_and_its_quantization_rate():
    torch.manual_seed(0)
    rvq = RVQ(8, 12.5, n_q=3, codebook_size=16, quantization_rate=0.5)
    z = torch.randn(1000, 8, 4)
    rvq(z)
    books = rvq.codebooks.clone()
    out = rvq(z)
    torch.testing.assert_close(out.semantic, books[0][out.codes[:, 0]].transpose(1, 2), atol=1e-5, rtol=1e-5)
    share = float(((out.z - z).abs().amax((1, 2)) < 1e-5).float().mean())
    assert abs(share - 0.5) < 0.07
    assert rvq.eval()(z).semantic is None


def test_masks_are_honest():
    device = torch.device("cpu")
    assert not unquantized_mask(10, 1.0, device).any()
    assert unquantized_mask(10, 0.0, device).all()
    assert abs(float(unquantized_mask(20_000, 0.3, device).float().mean()) - 0.7) < 0.02


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="n_q=1 should be 2 or more"):
        split(n_q=1)
    with pytest.raises(ValueError, match="valid are 'shared' and 'independent'"):
        split(masks="both")
    with pytest.raises(ValueError, match="has 4 codebooks: choose 1 to 4"):
        split().encode(torch.zeros(1, 8, 1), 5)
