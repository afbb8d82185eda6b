"""Causal convolutions: trained form and matrix form, offline and streamed."""

import copy

import pytest
import torch

from codec.layers.conv import CausalConv1d, CausalConvTranspose1d, fold_weight_norm
from codec.layers.inference import MatrixConv1d, MatrixConvTranspose1d
from tests.helpers.parts import changed_outputs, count, streamed

DOWN = [(7, 1, 1), (3, 1, 9), (8, 4, 1), (4, 2, 1), (16, 8, 1), (1, 1, 1), (5, 5, 1)]  # kernel, stride, dilation
UP = [(16, 8), (4, 2), (6, 3), (5, 5), (7, 2)]  # kernel, stride
CHUNKS = ([1] * 12, [12], [3, 1, 6, 2])


@pytest.mark.parametrize(("kernel", "stride", "dilation"), DOWN)
@pytest.mark.parametrize("pad_mode", ["constant", "replicate"])
@torch.no_grad()
def test_convolution_is_causal_and_streams_in_both_forms(kernel, stride, dilation, pad_mode):
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, kernel, stride, dilation, pad_mode=pad_mode, weight_norm=True)
    x = torch.randn(2, 2, 12 * stride)
    y = conv(x)
    assert y.shape == (2, 3, 12)
    assert int(changed_outputs(conv, x, 5 * stride).min()) == 5
    for layer in (conv, MatrixConv1d(conv)):
        torch.testing.assert_close(layer(x), y, atol=1e-6, rtol=0)
        for chunks in CHUNKS:
            torch.testing.assert_close(streamed(layer, x, chunks, stride), y, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), UP)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
@torch.no_grad()
def test_transposed_convolution_is_causal_and_streams_in_both_forms(kernel, stride, bias, groups):
    torch.manual_seed(0)
    conv = CausalConvTranspose1d(4, 4, kernel, stride, groups=groups, bias=bias)
    x = torch.randn(2, 4, 12)
    y = conv(x)
    assert y.shape == (2, 4, 12 * stride)
    assert int(changed_outputs(conv, x, 5).min()) == 5 * stride
    for layer in (conv, MatrixConvTranspose1d(conv)):
        torch.testing.assert_close(layer(x), y, atol=1e-6, rtol=0)
        for chunks in CHUNKS:
            torch.testing.assert_close(streamed(layer, x, chunks), y, atol=1e-6, rtol=0)


def test_weight_norm_can_be_copied_and_folded():
    torch.manual_seed(0)
    conv = CausalConv1d(2, 3, 4, 2, weight_norm=True)
    x = torch.randn(1, 2, 8)
    y = conv(x)
    copied = copy.deepcopy(conv)
    assert count(conv) == count(CausalConv1d(2, 3, 4, 2)) + 3  # one gain per output channel
    torch.testing.assert_close(fold_weight_norm(copied)(x), y)
    assert count(copied) == count(CausalConv1d(2, 3, 4, 2))
    assert torch.equal(conv(x), y)


def test_bad_shapes_are_refused():
    for make in (CausalConv1d, CausalConvTranspose1d):
        with pytest.raises(ValueError, match="shorter than stride"):
            make(1, 1, 3, 4)
    with pytest.raises(ValueError, match="9 is not a multiple of the stride 4"):
        CausalConv1d(1, 1, 8, 4)(torch.zeros(1, 1, 9))
