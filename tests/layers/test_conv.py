import copy

import pytest
import torch

from codec.layers.conv import CausalConv1d, CausalConvTranspose1d, fold_weight_norm
from tests.helpers.parts import count

DOWN = [(7, 1, 1), (3, 1, 9), (8, 4, 1), (4, 2, 1), (16, 8, 1), (1, 1, 1), (5, 5, 1)]  # kernel, stride, dilation


@pytest.mark.parametrize(("kernel", "stride", "dilation"), DOWN)
@pytest.mark.parametrize("pad_mode", ["constant", "replicate"])
def test_convolution_is_causal_and_streams(kernel, stride, dilation, pad_mode):
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, kernel, stride, dilation, pad_mode=pad_mode)
    x = torch.randn(2, 2, 12 * stride)
    y = conv(x)
    assert y.shape == (2, 3, 12)

    cut = 5 * stride  # changing inputs from here on must leave outputs 0..4 alone, and touch output 5
    changed = x.clone()
    changed[..., cut:] += 1.0
    z = conv(changed)
    assert torch.equal(y[..., :5], z[..., :5])
    assert not torch.allclose(y[..., 5], z[..., 5])

    for chunks in ([1] * 12, [12], [3, 1, 6, 2]):
        state, out = None, []
        for piece in x.split([n * stride for n in chunks], dim=-1):
            step, state = conv.step(piece, state)
            out.append(step)
        torch.testing.assert_close(torch.cat(out, -1), y, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (4, 2), (6, 3), (5, 5), (7, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_transposed_convolution_is_causal_and_streams(kernel, stride, bias):
    torch.manual_seed(0)
    conv = CausalConvTranspose1d(2, 3, kernel, stride, bias=bias)
    x = torch.randn(2, 2, 12)
    y = conv(x)
    assert y.shape == (2, 3, 12 * stride)
    changed = x.clone()
    changed[..., 5:] += 1.0
    z = conv(changed)
    assert torch.equal(y[..., : 5 * stride], z[..., : 5 * stride])
    assert not torch.allclose(y[..., 5 * stride : 6 * stride], z[..., 5 * stride : 6 * stride])

    for chunks in ([1] * 12, [12], [3, 1, 6, 2]):
        state, out = None, []
        for piece in x.split(chunks, dim=-1):
            step, state = conv.step(piece, state)
            out.append(step)
        torch.testing.assert_close(torch.cat(out, -1), y, atol=1e-6, rtol=0)


def test_weight_norm_can_be_copied_and_folded():
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, 4, 2, weight_norm=True)
    x = torch.randn(1, 2, 8)
    y = conv(x)
    copied = copy.deepcopy(conv)
    assert count(conv) == count(CausalConv1d(2, 3, 4, 2)) + 3  # one gain per output channel
    torch.testing.assert_close(fold_weight_norm(copied)(x), y)
    assert count(copied) == count(CausalConv1d(2, 3, 4, 2))


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="shorter than stride"):
        CausalConv1d(1, 1, 3, 4)
    with pytest.raises(ValueError, match="shorter than stride"):
        CausalConvTranspose1d(1, 1, 3, 4)
    with pytest.raises(ValueError, match="9 is not a multiple of the stride 4"):
        CausalConv1d(1, 1, 8, 4)(torch.zeros(1, 1, 9))
