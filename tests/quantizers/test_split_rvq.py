"""The split quantizer, and quantization of only a part of the examples."""

import math

import pytest
import torch

from codec.quantizers.split_rvq import SplitRVQ
from tests.helpers.parts import count


def split(**changes) -> SplitRVQ:
    torch.manual_seed(0)
    options = dict(dim=8, frame_rate=12.5, n_q=4, codebook_size=16, codebook_dim=4, dropout=0.0, quantization_rate=1.0)
    return SplitRVQ(**{**options, "kmeans_iters": 5, **changes})


def trained(batch: int = 16, **changes) -> tuple[SplitRVQ, torch.Tensor]:
    quantizer = split(**changes)
    z = torch.randn(batch, 8, 20, generator=torch.Generator().manual_seed(1))
    for _ in range(10):
        quantizer.train()(z)
    return quantizer, z


def projected(quantizer, z) -> torch.Tensor:
    """Both parts' unquantized outputs ``[2, B, D, F]``."""
    return torch.stack([part.project_out(part.project_in(z)) for part in (quantizer.semantic, quantizer.acoustic)])


def test_parameters_and_buffers_of_mimi():
    quantizer = SplitRVQ(512, 12.5, n_q=32)
    assert count(quantizer) == 524_288
    buffers = sum(b.numel() for name, b in quantizer.named_buffers() if "codebooks" not in name)
    assert buffers == 32 * (2048 * 256 + 2048)  # and in Kyutai's file one flag for each codebook
    assert quantizer.bitrate() == pytest.approx(4.4)
    assert quantizer.bitrate(8) == pytest.approx(1.1)


def test_both_parts_quantize_the_same_latent_and_their_outputs_are_added():
    quantizer, z = trained()
    quantizer.eval()
    out, semantic, acoustic = quantizer(z), quantizer.semantic(z), quantizer.acoustic(z)
    torch.testing.assert_close(out.z, semantic.z + acoustic.z)
    assert torch.equal(out.codes, torch.cat([semantic.codes, acoustic.codes], 1))


def test_every_codebook_commits_with_equal_weight():
    quantizer, z = trained()
    out = quantizer(z)
    quantizer, _ = trained()
    semantic, acoustic = quantizer.semantic(z), quantizer.acoustic(z, active=torch.ones(3, 16, dtype=torch.bool))
    torch.testing.assert_close(out.loss, (semantic.loss + 3 * acoustic.loss) / 4)
    assert {"usage/1", "usage/4", "perplexity/2", "entropy_kbps"} <= out.metrics.keys()
    assert "usage/5" not in out.metrics
    total = sum(out.metrics[f"entropy/{k}"] for k in range(1, 5)) * 12.5 / 1000
    torch.testing.assert_close(out.metrics["entropy_kbps"], total)


def test_the_semantic_codebook_is_never_dropped():
    quantizer, z = trained(dropout=1.0, batch=400)
    with torch.no_grad():
        out = quantizer(z)
        quantizer.eval()
        each = [quantizer(z, n).z for n in range(1, 5)]
    levels = torch.stack([(out.z - one).abs().amax((1, 2)) < 1e-5 for one in each])  # [4, B]
    fractions = levels.float().mean(1)
    assert float(fractions[0]) == 0.0  # at least one acoustic codebook
    assert all(0.25 < float(fraction) < 0.42 for fraction in fractions[1:])


@pytest.mark.parametrize(
    ("masks", "fractions"), [("shared", (0.5, 0.5, 0.0, 0.0)), ("independent", (0.25, 0.25, 0.25, 0.25))]
)
def test_examples_are_unquantized_as_a_whole_or_part_by_part(masks, fractions):
    quantizer, z = trained(quantization_rate=0.5, masks=masks, batch=1000)
    with torch.no_grad():
        out = quantizer(z).z
        free = projected(quantizer, z)
        quantizer.eval()
        bound = torch.stack([quantizer.semantic(z).z, quantizer.acoustic(z).z])
    kinds = [free[0] + free[1], bound[0] + bound[1], free[0] + bound[1], bound[0] + free[1]]
    found = torch.stack([(out - kind).abs().amax((1, 2)) < 1e-5 for kind in kinds]).float()
    assert found.sum(0).eq(1).all()  # whole examples
    for fraction, expected in zip(found.mean(1), fractions, strict=True):
        assert abs(float(fraction) - expected) < 4 * math.sqrt(0.25 / 1000)


def test_unquantized_examples_update_the_codebooks_and_have_a_semantic_output():
    quantizer, z = trained(quantization_rate=0.0, dropout=1.0)
    z = (z + 1.0).requires_grad_()
    before = quantizer.semantic.codebooks.clone()
    out = quantizer(z)
    torch.testing.assert_close(out.z, projected(quantizer, z).sum(0), atol=1e-5, rtol=1e-5)
    assert float((quantizer.semantic.codebooks - before).abs().max()) > 1e-3
    assert float(out.loss.detach()) > 0
    value = quantizer.semantic.project_out(before[0][out.codes[:, 0]].transpose(1, 2))
    torch.testing.assert_close(out.semantic, value, atol=1e-5, rtol=1e-5)
    out.semantic.sum().backward()
    ones = quantizer.semantic.project_out.weight[..., 0].t().sum(1)
    through = quantizer.semantic.project_in.weight[..., 0].t() @ ones  # straight through both projections
    torch.testing.assert_close(z.grad, through[None, :, None].expand_as(z), atol=1e-5, rtol=1e-5)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="n_q=1 should be 2 or more"):
        split(n_q=1)
    with pytest.raises(ValueError, match="valid are 'shared' and 'independent'"):
        split(masks="both")
