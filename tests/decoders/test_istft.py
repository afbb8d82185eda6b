import pytest
import torch

from codec.decoders.istft import ISTFTDecoder

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
    head = torch.cat([spectra.abs().clamp(min=1e-9).log(), spectra.angle()], dim=-1)
    out = decoder._synthesise(head)
    assert out.shape == (1, 1, frames * decoder.hop)
    torch.testing.assert_close(out[0], wav, atol=1e-4, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_length_and_lookahead(causal):
    torch.manual_seed(0)
    decoder = ISTFTDecoder(**SMALL, causal=causal)
    z = torch.randn(2, 4, 20)
    y = decoder(z)
    assert y.shape == (2, 1, 20 * 16)
    changed = z.clone()
    changed[..., 15:] += 1.0
    same = (decoder(changed) - y).abs().amax((0, 1)) == 0
    first = int((~same).nonzero()[0])  # the first sample that heard of the change in frame 15
    window = (decoder.n_fft - decoder.hop) // 2
    lookahead = 0 if causal else decoder.hop_length + 2 * decoder.hop  # the stem, and one STFT frame per block
    assert 15 * 16 - window - lookahead <= first <= 15 * 16 - window - lookahead + 1


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="must divide the hop"):
        ISTFTDecoder(**SMALL, split=3)
    with pytest.raises(ValueError, match="be even"):
        ISTFTDecoder(**SMALL, overlap=3)
