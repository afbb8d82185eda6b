"""SEANet encoder and decoder together: sizes of the published models, causality, streaming."""

import pytest
import torch

from codec.decoders.seanet import SEANetDecoder
from codec.encoders.seanet import SEANetEncoder
from codec.layers.conv import fold_weight_norm
from codec.layers.seanet import ResidualUnits
from tests.helpers.parts import ENCODEC, MIMI, SMALL, changed_outputs, count, streamed

SOUNDSTREAM = dict(channels=32, strides=[2, 4, 5, 8], units=ResidualUnits())
CASES = {  # arguments -> parameters of encoder and decoder, weight norm folded
    "mimi": (MIMI, 12_628_256, 14_724_641),
    "encodec package": (ENCODEC, 7_423_472, 7_423_345),
    "encodec in audiocraft": ({**ENCODEC, "units": ResidualUnits((1,), 3, 2)}, 7_335_952, 7_335_825),
}


@pytest.mark.parametrize("name", CASES)
def test_parameters_of_published_models(name):
    arguments, encoder, decoder = CASES[name]
    parts = SEANetEncoder(**arguments), SEANetDecoder(**arguments)
    if name == "encodec package":
        assert [count(part) for part in parts] == [7_425_792, 7_426_018]  # with the gains of weight norm
    assert [count(fold_weight_norm(part)) for part in parts] == [encoder, decoder]


@pytest.mark.parametrize(("dim", "total"), [(256, 10_494_209), (64, 9_510_977)])
def test_parameters_of_soundstream(dim, total):
    encoder = SEANetEncoder(dim, **SOUNDSTREAM, last_kernel=3)
    decoder = SEANetDecoder(dim, **SOUNDSTREAM, last_kernel=7)
    assert count(fold_weight_norm(encoder)) + count(fold_weight_norm(decoder)) == total


@pytest.mark.parametrize("lstm", [0, 1])
@pytest.mark.parametrize("shortcut", ["identity", "conv"])
@torch.no_grad()
def test_causal_and_streaming(lstm, shortcut):
    torch.manual_seed(0)
    arguments = SMALL | {"lstm": lstm, "units": ResidualUnits((1, 3), 3, 2, shortcut)}
    encoder, decoder = SEANetEncoder(**arguments).eval(), SEANetDecoder(**arguments).eval()
    wav = torch.randn(2, 1, 96)
    z = encoder(wav)
    y = decoder(z)
    assert z.shape == (2, 8, 12)
    assert y.shape == wav.shape
    assert int(changed_outputs(encoder, wav, 40).min()) == 5
    assert int(changed_outputs(decoder, z, 5).min()) == 40
    for chunks in ([1] * 12, [5, 1, 6]):
        torch.testing.assert_close(streamed(encoder, wav, chunks, 8), z, atol=1e-5, rtol=0)
        torch.testing.assert_close(streamed(decoder, z, chunks), y, atol=1e-5, rtol=0)


def test_unknown_shortcut_is_refused():
    with pytest.raises(ValueError, match="valid are 'identity' and 'conv'"):
        ResidualUnits(shortcut="none")
