"""The forms for inference give what the layers that they replace give, in one piece and as a stream."""

import copy

import pytest
import torch
from torch import nn

from codec.layers.conv import CausalConv1d, CausalConvTranspose1d
from codec.layers.inference import MatrixConv1d, MatrixConvTranspose1d, ReducedPrecision, RingTransformer, for_inference
from codec.layers.transformer import Transformer
from tests.layers.test_conv import DOWN

CHUNKS = ([1] * 12, [12], [3, 1, 6, 2])


def streamed(layer: nn.Module, x: torch.Tensor, chunks: list[int], stride: int = 1) -> torch.Tensor:
    state, out = None, []
    for piece in x.split([n * stride for n in chunks], dim=-1):
        y, state = layer.step(piece, state)
        out.append(y)
    return torch.cat(out, -1)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), DOWN)
@pytest.mark.parametrize("pad_mode", ["constant", "replicate"])
@torch.no_grad()
def test_convolution(kernel, stride, dilation, pad_mode):
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, kernel, stride, dilation, pad_mode=pad_mode, weight_norm=True)
    x = torch.randn(2, 2, 12 * stride)
    y = conv(x)
    matrix = MatrixConv1d(conv)
    torch.testing.assert_close(matrix(x), y, atol=1e-6, rtol=0)
    for chunks in CHUNKS:
        torch.testing.assert_close(streamed(matrix, x, chunks, stride), y, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (4, 2), (6, 3), (5, 5), (7, 2)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
@torch.no_grad()
def test_transposed_convolution(kernel, stride, bias, groups):
    torch.manual_seed(0)
    conv = CausalConvTranspose1d(4, 4, kernel, stride, groups=groups, bias=bias)
    x = torch.randn(2, 4, 12)
    y = conv(x)
    matrix = MatrixConvTranspose1d(conv)
    torch.testing.assert_close(matrix(x), y, atol=1e-6, rtol=0)
    for chunks in CHUNKS:
        torch.testing.assert_close(streamed(matrix, x, chunks), y, atol=1e-6, rtol=0)


@pytest.mark.parametrize("chunks", [[1] * 60, [60], [16, 17, 1, 26], [40, 2, 18], [3] * 20])
@torch.no_grad()
def test_transformer_in_a_ring(chunks):
    """Steps within the ring's spare places, beyond them, and longer than the ring, in any order."""
    torch.manual_seed(0)
    model = Transformer(16, layers=2, heads=2, hidden=32, context=6, scale=0.5).eval()
    x = torch.randn(2, 16, 60)
    y = model(x)
    ring = RingTransformer(copy.deepcopy(model))
    assert ring.size == 21
    torch.testing.assert_close(streamed(ring, x, chunks), y, atol=1e-5, rtol=0)


def test_what_is_replaced():
    """All but grouped convolutions; the original stays as it was when its copy is turned into matrices."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "conv": CausalConv1d(2, 2, 3, weight_norm=True),
            "grouped": CausalConv1d(4, 4, 3, groups=2, weight_norm=True),
            "transformer": Transformer(8, layers=1, heads=2, hidden=8),
        }
    )
    x = torch.randn(1, 2, 5)
    y = model["conv"](x)
    frozen = for_inference(copy.deepcopy(model))
    kinds = {name: type(part) for name, part in frozen.items()}
    assert kinds == {"conv": MatrixConv1d, "grouped": CausalConv1d, "transformer": RingTransformer}
    assert not any(p.requires_grad for p in frozen.parameters())
    torch.testing.assert_close(frozen["conv"](x), y, atol=1e-6, rtol=0)
    assert torch.equal(model["conv"](x), y)


def test_low_precision_speaks_fp32_and_keeps_what_must_stay():
    class Part(nn.Module):
        dim, hop_length = 4, 1

        def __init__(self):
            super().__init__()
            self.body, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

        def full_precision(self):
            return [self.last]

        def step(self, x, state=None):
            return self.last(self.body(x).float()), state

    inner = Part()
    last = inner.last.weight.detach().clone()
    part = ReducedPrecision(inner, torch.bfloat16)
    assert torch.equal(part.part.last.weight, last)  # not rounded on the way
    assert part.part.body.weight.dtype == torch.bfloat16
    assert part.part.last.weight.dtype == torch.float32
    assert part(torch.randn(2, 4)).dtype == torch.float32
