import pytest
import torch

from codec.encoders.stft import STFTEncoder

SMALL = dict(dim=4, hop_length=16, channels=8, hidden=16, blocks=2, kernel=3)


@pytest.mark.parametrize("split", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_frames_and_lookahead(split, causal):
    torch.manual_seed(0)
    encoder = STFTEncoder(**SMALL, split=split, causal=causal)
    wav = 0.1 * torch.randn(2, 1, 16 * 20)
    z = encoder(wav)
    assert z.shape == (2, 4, 20)
    changed = wav.clone()
    changed[..., 160:] += 1.0  # the first sample of frame 10
    same = (encoder(changed) - z).abs().amax((0, 1)) == 0
    first = int((~same).nonzero()[0])
    if causal:
        assert first == 10
    else:
        samples = (encoder.n_fft - encoder.hop) / 2 + 2 * encoder.hop  # the window, one STFT frame per block
        assert first == 10 - -(-(samples - 1) // 16)


def test_silence_and_loudness_are_finite():
    encoder = STFTEncoder(**SMALL)
    for wav in (torch.zeros(1, 1, 64), torch.ones(1, 1, 64), 1e-8 * torch.randn(1, 1, 64)):
        wav.requires_grad_()
        encoder(wav).square().mean().backward()
        assert wav.grad.isfinite().all()


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="must divide the hop"):
        STFTEncoder(**SMALL, split=3)
