"""Inverse-STFT decoder (its look-ahead: tests/evaluation/test_profiling.py)."""

import pytest
import torch

from codec.decoders.istft import ISTFTDecoder
from tests.helpers.parts import changed_outputs

SMALL = dict(dim=4, hop_length=16, channels=8, hidden=16, blocks=2, kernel=3)


@pytest.mark.parametrize("split", [1, 2, 4])
@pytest.mark.parametrize("overlap", [2, 4])
def test_synthesis_inverts_the_stft(split, overlap):
    """A perfect prediction of the spectrum gives back the waveform, away from its two ends."""
    decoder = ISTFTDecoder(**SMALL, split=split, overlap=overlap)
    frames = 12 * split
    torch.manual_seed(0)
    wav = torch.randn(1, frames * decoder.hop)
    pad = (decoder.n_fft - decoder.hop) // 2
    padded = torch.nn.functional.pad(wav, (pad, pad))
    spectra = torch.fft.rfft(padded.unfold(-1, decoder.n_fft, decoder.hop) * decoder.window)  # [1, F, bins]
    out = decoder._synthesise(torch.cat([spectra.abs().clamp(min=1e-9).log(), spectra.angle()], dim=-1))
    assert out.shape == (1, 1, frames * decoder.hop)
    torch.testing.assert_close(out[0], wav, atol=1e-4, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_length_and_lookahead(causal):
    torch.manual_seed(0)
    decoder = ISTFTDecoder(**SMALL, causal=causal)
    z = torch.randn(2, 4, 20)
    assert decoder(z).shape == (2, 1, 20 * 16)
    assert int(changed_outputs(decoder, z, 15).min()) == 15 * 16 - decoder.lookahead


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="must divide the hop"):
        ISTFTDecoder(**SMALL, split=3)
