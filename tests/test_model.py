"""The codec: lengths, numbers of codebooks, and parts that do not fit."""

import pytest
import torch

from codec.decoders.istft import ISTFTDecoder
from codec.decoders.seanet import SEANetDecoder
from codec.model import Codec
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ
from tests.helpers.parts import SMALL, changed_outputs, small_codec


@pytest.mark.parametrize("length", [1, 7, 8, 9, 161])
@pytest.mark.parametrize("decoder", ["seanet", "istft"])
@torch.no_grad()
def test_output_is_as_long_as_the_input(length, decoder):
    codec = small_codec().eval()
    if decoder == "istft":
        codec.decoder = ISTFTDecoder(8, 8, channels=8, hidden=16, blocks=1)
    wav = torch.randn(2, 1, length)
    out, codes, frames = codec(wav), codec.encode(wav), -(-length // 8)
    assert out.wav.shape == wav.shape
    assert out.latents.shape == (2, 8, frames)
    assert codes.shape == (2, 3, frames)
    torch.testing.assert_close(codec.decode(codes, length), out.wav, atol=1e-5, rtol=0)
    assert codec.decode(codes).shape[-1] == 8 * frames


def test_future_input_never_changes_past_output():
    codec = small_codec(NoQuantizer(8, 100)).eval()
    forward, codec.forward = codec.forward, lambda wav: forward(wav).wav
    assert int(changed_outputs(codec, torch.randn(1, 1, 160), 80).min()) == 80


@torch.no_grad()
def test_fewer_codebooks():
    codec = small_codec().eval()
    wav = torch.randn(1, 1, 80)
    full, one = codec(wav), codec(wav, n_q=1)
    assert torch.equal(one.quantized.codes, full.quantized.codes[:, :1])
    torch.testing.assert_close(codec.decode(codec.encode(wav, 1)), one.wav, atol=1e-5, rtol=0)
    assert codec.bitrate(1) == pytest.approx(codec.bitrate() / 3)


@pytest.mark.parametrize("shape", [(1, 80), (1, 2, 80), (1, 1, 0), (80,)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        small_codec()(torch.zeros(shape))


def test_parts_that_disagree_are_refused():
    good = small_codec()
    with pytest.raises(ValueError, match="set frame_rate=100"):
        Codec(good.encoder, good.quantizer, good.decoder, 800, 50)
    with pytest.raises(ValueError, match="make the products of their strides equal"):
        Codec(good.encoder, good.quantizer, SEANetDecoder(**SMALL | {"strides": [2, 2]}), 800, 100)
    with pytest.raises(ValueError, match="set latent_dim once"):
        Codec(good.encoder, RVQ(16, 100), good.decoder, 800, 100)
