"""What every reconstruction loss must hold, and what the spectral ones are made of."""

import math

import pytest
import torch
import torch.nn.functional as F

from codec.layers.spectrogram import MelSpectrogram
from codec.losses.mel import MultiScaleMel
from codec.losses.soundstream_mel import SoundStreamMel
from codec.losses.spectrum import RelativeSpectrum
from codec.losses.stft import MultiResolutionSTFT
from codec.losses.subband import PQMF, SubbandSTFT
from codec.losses.waveform import L1

RATE = 16000
ENCODEC = {
    "windows": (64, 128, 256, 512, 1024),
    "mels": 64,
    "linear": 0.5,
    "log": 0.5,
    "distance": "l2",
    "f_min": 64.0,
    "convention": "torchaudio",
}
LOSSES = {
    "l1": L1,
    "mel_dac": lambda: MultiScaleMel(RATE),
    "mel_encodec": lambda: MultiScaleMel(RATE, **ENCODEC),
    "mel_soundstream": lambda: SoundStreamMel(RATE),
    "stft": MultiResolutionSTFT,
    "subband": SubbandSTFT,
    "spectrum": RelativeSpectrum,
}
SYMMETRIC = ("l1", "mel_dac", "mel_encodec", "mel_soundstream")


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]()


def speechlike(seed=0, batch=2, samples=8001):
    """Harmonics with a slow envelope over a little noise, within [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / RATE
    pitch = 100 + 100 * torch.rand(batch, 1, 1, generator=generator)
    voice = sum(torch.sin(2 * torch.pi * k * pitch * time) / k for k in range(1, 20))
    noise = torch.randn(batch, 1, samples, generator=generator)
    return 0.2 * voice * (1 + torch.sin(2 * torch.pi * 4 * time)) + 0.01 * noise


def test_equal_signals_cost_nothing(loss):
    assert loss(speechlike(), speechlike()).item() == pytest.approx(0, abs=1e-6)


def test_a_larger_error_costs_more(loss):
    wav, noise = speechlike(), torch.randn(2, 1, 8001, generator=torch.Generator().manual_seed(1))
    costs = [loss(wav, wav + scale * noise).item() for scale in (0.001, 0.01, 0.1)]
    assert 0 < costs[0] < costs[1] < costs[2]


def test_gain_is_heard(loss):
    assert loss(speechlike(), 0.5 * speechlike()) > loss(speechlike(), 0.9 * speechlike()) > 0


@pytest.mark.parametrize("name", SYMMETRIC)
def test_distances_are_symmetric(name):
    loss = LOSSES[name]()
    torch.testing.assert_close(loss(speechlike(0), speechlike(1)), loss(speechlike(1), speechlike(0)))


@pytest.mark.parametrize("target", ["silence", "speech"])
@pytest.mark.parametrize("estimate", ["silence", "speech", "same"])
def test_gradients_are_finite_even_at_silence(loss, target, estimate):
    sounds = {"silence": torch.zeros(2, 1, 8001), "speech": speechlike(1), "same": speechlike(0)}
    real = speechlike(0) if target == "speech" else sounds["silence"]
    fake = sounds[estimate].clone().requires_grad_()
    value = loss(real, fake)
    (grad,) = torch.autograd.grad(value, fake)
    assert value.isfinite()
    assert grad.isfinite().all()


def test_a_step_against_the_gradient_lowers_the_loss(loss):
    real, fake = speechlike(0), speechlike(1).requires_grad_()
    before = loss(real, fake)
    (grad,) = torch.autograd.grad(before, fake)
    assert loss(real, fake - 1e-3 * grad / grad.norm()) < before


def test_autocast_does_not_touch_the_computation(loss):
    real, fake = speechlike(0), speechlike(1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(real, fake)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, loss(real, fake), rtol=1e-5, atol=1e-6)


def test_bf16_signals_are_taken(loss):
    value = loss(speechlike(0).bfloat16(), speechlike(1).bfloat16())
    assert value.dtype == torch.float32
    assert value.isfinite()


def test_nothing_to_learn_and_nothing_to_save(loss):
    assert not list(loss.parameters())
    assert not loss.state_dict()


@pytest.mark.parametrize("name", ["mel_dac", "mel_encodec", "mel_soundstream", "stft", "subband"])
def test_a_short_waveform_ends_in_one_sentence(name):
    with pytest.raises(ValueError, match=r"too short .*needs at least [0-9]+"):
        LOSSES[name]()(torch.zeros(1, 1, 50), torch.zeros(1, 1, 50))


def test_a_mel_frame_per_hop_and_no_warning_for_empty_filters(recwarn):
    mel = MelSpectrogram(RATE, window=64, bands=64)
    assert mel(torch.zeros(3, 1, 1001)).shape == (3, 64, math.ceil(1001 / 16))
    assert not recwarn.list


def test_mel_in_torchaudios_convention_is_torchaudios():
    import torchaudio

    wav = speechlike()[..., :8000]
    ours = MelSpectrogram(RATE, 512, 40, f_min=64.0, power=2, normalized=True)(wav)
    theirs = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=512, hop_length=128, n_mels=40, f_min=64.0, normalized=True, center=False
    )(F.pad(wav, (192, 256), "reflect"))
    # 8000 is 62.5 hops: the last frame is completed by reflection.
    torch.testing.assert_close(ours, theirs.squeeze(1), rtol=1e-4, atol=1e-6)


def test_encodec_divides_by_twice_the_number_of_scales():
    real, fake = speechlike(0), speechlike(1)
    total = 0.0
    for window in ENCODEC["windows"]:
        mel = MelSpectrogram(RATE, window, 64, 64.0, power=2, normalized=True)
        x, y = mel(real), mel(fake)
        total += F.l1_loss(x, y) + F.mse_loss((x + 1e-5).log10(), (y + 1e-5).log10())
    torch.testing.assert_close(MultiScaleMel(RATE, **ENCODEC)(real, fake), total / 10)


def test_ten_decibels_are_half_a_unit_of_dacs_log_magnitude():
    # Loud in every band, so that the floor is far: log10 of an amplitude ratio of 10 dB is 0.5.
    noise = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    loss = MultiScaleMel(RATE, windows=(256, 1024), mels=(20, 40))
    torch.testing.assert_close(loss(noise, noise * 10**-0.5), torch.tensor(0.5), rtol=1e-3, atol=0)


def test_soundstream_weighs_logs_by_the_root_of_half_the_window():
    noise = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))
    loss = SoundStreamMel(RATE, windows=(512,), mels=16, floor=1e-9)
    linear = (1 - math.exp(-1)) * loss.scales[0](noise).sum(1).mean()
    log = math.sqrt(256) * math.sqrt(16)  # every band is 1 neper lower
    torch.testing.assert_close(loss(noise, noise * math.exp(-1)), linear + log, rtol=1e-3, atol=0)


@pytest.mark.parametrize("bands", [2, 4, 6, 8])
def test_the_filter_bank_reconstructs(bands):
    wav = torch.randn(1, 1, 240 * bands, generator=torch.Generator().manual_seed(0))
    split = PQMF(bands)
    subbands = split(wav)
    assert subbands.shape == (1, bands, 240)
    back = F.conv_transpose1d(subbands, split.filters * bands, stride=bands, padding=8 * bands)
    inner = slice(16 * bands, 220 * bands)  # away from the zeros beyond both ends
    error = (back[..., inner] - wav[..., inner]).square().mean()
    assert 10 * torch.log10(wav.square().mean() / error) > 60  # dB


def test_a_tone_lands_in_its_band():
    centres = (torch.arange(6) + 0.5) / 12  # cycles per sample
    tones = torch.sin(2 * torch.pi * centres[:, None] * torch.arange(3000)).unsqueeze(1)
    energy = PQMF(6)(tones)[..., 50:-50].square().mean(-1)  # [tone, band]
    assert energy.argmax(1).tolist() == list(range(6))
    share = energy.diagonal() / energy.sum(1)
    assert share.min() > 0.999


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="one per window"):
        MultiScaleMel(RATE, windows=(64, 128), mels=(5,))
    with pytest.raises(ValueError, match="l1, l2"):
        MultiScaleMel(RATE, distance="l3")
    with pytest.raises(ValueError, match="librosa, torchaudio"):
        MultiScaleMel(RATE, convention="other")
    with pytest.raises(ValueError, match="multiple of 4"):
        MelSpectrogram(RATE, window=30, bands=4)
    with pytest.raises(ValueError, match="equally long"):
        MultiResolutionSTFT(ffts=(512,))


def test_relative_spectrum_is_what_it_says():
    x = 0.1 * torch.randn(2, 1, 8000)
    for part, expected in ({"magnitude": 0.0}, 1.0), ({"complex": 0.0}, 1.0), ({}, 2.0):
        loss = RelativeSpectrum(**part)
        assert float(loss(x, torch.zeros_like(x))) == pytest.approx(expected, rel=0.01)
        assert float(loss(10 * x, 9 * x)) == pytest.approx(0.1 * expected, rel=0.01)  # relative to the target's level
    assert float(RelativeSpectrum(complex=0.0)(x, -x)) == pytest.approx(0.0, abs=1e-6)  # magnitudes forgive the phase
    assert float(RelativeSpectrum(magnitude=0.0)(x, -x)) == pytest.approx(2.0, rel=0.01)
    with pytest.raises(ValueError, match="too short"):
        loss(x[..., :500], x[..., :500])


def gradients(rank, parts):
    """Of every loss, at one process's part of a batch whose examples differ in level."""
    level = torch.tensor([1.0, 0.3, 0.01, 0.1])[:, None, None]
    real, fake = ((level * speechlike(seed, 4))[parts[rank]] for seed in (0, 1))
    fake.requires_grad_()
    return {name: torch.autograd.grad(LOSSES[name]()(real, fake), fake)[0] for name in LOSSES}


def test_two_processes_compute_what_one_does_with_the_whole_batch(pair):
    """ddp takes the mean over processes, so each one's gradient is twice what it is in the whole batch."""
    first, second = pair(gradients, [slice(2), slice(2, 4)])
    for name, expected in gradients(0, [slice(4)]).items():
        found = torch.cat([first[name], second[name]]) / 2
        assert (found - expected).norm() < 1e-5 * expected.norm(), name


def test_equal_signals_have_finite_gradients_in_two_processes(pair):
    assert pair(at_equal_signals) == [True, True]


def at_equal_signals(rank):
    real, fake = speechlike(rank), speechlike(rank).requires_grad_()
    losses = [loss()(real, fake) for loss in LOSSES.values()]
    return all(bool(torch.autograd.grad(loss, fake)[0].isfinite().all()) for loss in losses)
