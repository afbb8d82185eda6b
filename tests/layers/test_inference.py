"""Forms for inference: which layers are replaced, and their precision (results: test_conv, test_transformer)."""

import copy

import torch
from torch import nn

from codec.layers.conv import CausalConv1d
from codec.layers.inference import MatrixConv1d, ReducedPrecision, RingTransformer, for_inference
from codec.layers.transformer import Transformer


def test_all_but_grouped_convolutions_are_replaced():
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
    assert torch.equal(model["conv"](x), y)  # the original is unchanged


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
