"""STFT encoder (its look-ahead: tests/evaluation/test_profiling.py)."""

import pytest
import torch

from codec.encoders.stft import STFTEncoder
from tests.helpers.parts import changed_outputs

SMALL = dict(dim=4, hop_length=16, channels=8, hidden=16, blocks=2, kernel=3)


@pytest.mark.parametrize("split", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_frames_and_lookahead(split, causal):
    torch.manual_seed(0)
    encoder = STFTEncoder(**SMALL, split=split, causal=causal)
    wav = 0.1 * torch.randn(2, 1, 16 * 20)
    assert encoder(wav).shape == (2, 4, 20)
    assert int(changed_outputs(encoder, wav, 160).min()) == 10 - -(-max(0, encoder.lookahead - 1) // 16)


def test_silence_and_constants_have_finite_gradients():
    encoder = STFTEncoder(**SMALL)
    for wav in (torch.zeros(1, 1, 64), torch.ones(1, 1, 64), 1e-8 * torch.randn(1, 1, 64)):
        wav.requires_grad_()
        encoder(wav).square().mean().backward()
        assert wav.grad.isfinite().all()


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="must divide the hop"):
        STFTEncoder(**SMALL, split=3)
    with pytest.raises(ValueError, match="be even"):
        STFTEncoder(**SMALL, overlap=3)
