"""Forms for inference: which layers are replaced, and their precision (results: test_conv, test_transformer)."""

import copy

import torch
from torch import nn

from codec.layers.conv import CausalConv1d, CausalConvTranspose1d
from codec.layers.inference import (
    MatrixConv1d,
    MatrixConvTranspose1d,
    ReducedPrecision,
    RingTransformer,
    for_inference,
)
from codec.layers.transformer import Transformer
from tests.helpers.parts import streamed


def test_layers_are_replaced_by_equal_ones():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "conv": CausalConv1d(2, 2, 3, weight_norm=True),
            "grouped": CausalConv1d(4, 6, 3, groups=2, weight_norm=True),
            "depthwise": CausalConv1d(4, 4, 3, dilation=2, groups=4, bias=False),
            "up": CausalConvTranspose1d(4, 6, 5, 2, groups=2),
            "transformer": Transformer(8, layers=1, heads=2, hidden=8),
        }
    )
    x = torch.randn(1, 2, 5)
    y, z = model["conv"](x), torch.randn(2, 4, 6)
    frozen = for_inference(copy.deepcopy(model))
    kinds = {name: type(part) for name, part in frozen.items()}
    convs = dict.fromkeys(("conv", "grouped", "depthwise"), MatrixConv1d)
    assert kinds == convs | {"up": MatrixConvTranspose1d, "transformer": RingTransformer}
    assert not any(p.requires_grad for p in frozen.parameters())
    torch.testing.assert_close(frozen["conv"](x), y, atol=1e-6, rtol=0)
    assert torch.equal(model["conv"](x), y)  # the original is unchanged
    for name in ("grouped", "depthwise", "up"):
        torch.testing.assert_close(frozen[name](z), model[name](z), atol=1e-6, rtol=0)
        torch.testing.assert_close(streamed(frozen[name], z, [1, 3, 2]), model[name](z), atol=1e-6, rtol=0)


def test_reduced_precision_has_fp32_ends_and_exceptions():
    class Part(nn.Module):
        dim, hop_length, lookahead = 4, 1, 0

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
    assert torch.equal(part.part.last.weight, last)  # never rounded
    assert part.part.body.weight.dtype == torch.bfloat16
    assert part(torch.randn(2, 4)).dtype == torch.float32
