"""The contract of reconstruction losses, and the definition of each."""

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

RATE, SAMPLES = 16000, 4001
ENCODEC = {"windows": (64, 128, 256, 512, 1024), "mels": 64, "linear": 0.5, "log": 0.5, "distance": "l2"}
ENCODEC |= {"f_min": 64.0, "convention": "torchaudio"}
LOSSES = {
    "l1": L1,
    "mel_dac": lambda: MultiScaleMel(RATE),
    "mel_encodec": lambda: MultiScaleMel(RATE, **ENCODEC),
    "mel_soundstream": lambda: SoundStreamMel(RATE),
    "stft": MultiResolutionSTFT,
    "subband": SubbandSTFT,
    "spectrum": RelativeSpectrum,
}


@pytest.fixture(scope="module", params=LOSSES)
def loss(request):
    return LOSSES[request.param]()


def speechlike(seed=0, batch=2):
    """Harmonics with a slow envelope over a little noise, within [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(SAMPLES) / RATE
    pitch = 100 + 100 * torch.rand(batch, 1, 1, generator=generator)
    voice = sum(torch.sin(2 * torch.pi * k * pitch * time) / k for k in range(1, 20))
    noise = torch.randn(batch, 1, SAMPLES, generator=generator)
    return 0.2 * voice * (1 + torch.sin(2 * torch.pi * 4 * time)) + 0.01 * noise


def test_larger_errors_cost_more_and_equal_signals_nothing(loss):
    wav, noise = speechlike(), torch.randn(2, 1, SAMPLES, generator=torch.Generator().manual_seed(1))
    assert loss(wav, wav).item() == pytest.approx(0, abs=1e-6)
    costs = [loss(wav, wav + scale * noise).item() for scale in (0.001, 0.01, 0.1)]
    assert 0 < costs[0] < costs[1] < costs[2]
    assert loss(wav, 0.5 * wav) > loss(wav, 0.9 * wav) > 0


@pytest.mark.parametrize("target", ["silence", "speech"])
@pytest.mark.parametrize("estimate", ["silence", "other", "speech"])
def test_gradients_are_finite_even_at_silence(loss, target, estimate):
    sounds = {"silence": torch.zeros(2, 1, SAMPLES), "speech": speechlike(0), "other": speechlike(1)}
    fake = sounds[estimate].clone().requires_grad_()
    value = loss(sounds[target], fake)
    (grad,) = torch.autograd.grad(value, fake)
    assert value.isfinite()
    assert grad.isfinite().all()
    if (target, estimate) == ("speech", "other"):
        assert loss(sounds[target], fake - 1e-3 * grad / grad.norm()) < value  # a descent direction


def test_computation_is_in_fp32(loss):
    real, fake = speechlike(0), speechlike(1)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(real, fake)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, loss(real, fake), rtol=1e-5, atol=1e-6)
    value = loss(real.bfloat16(), fake.bfloat16())
    assert value.dtype == torch.float32
    assert value.isfinite()


def test_losses_have_no_state(loss):
    assert not list(loss.parameters())
    assert not loss.state_dict()


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "l1"])
def test_short_waveforms_are_refused(name):
    with pytest.raises(ValueError, match=r"too short .*needs at least [0-9]+"):
        LOSSES[name]()(torch.zeros(1, 1, 50), torch.zeros(1, 1, 50))


def test_mels_have_a_frame_per_hop_and_are_torchaudios(recwarn):
    import torchaudio

    mel = MelSpectrogram(RATE, window=64, bands=64)
    assert mel(torch.zeros(3, 1, 1001)).shape == (3, 64, math.ceil(1001 / 16))
    assert not recwarn.list  # about filters without a bin
    wav = speechlike()[..., :4000]
    ours = MelSpectrogram(RATE, 512, 40, f_min=64.0, power=2, normalized=True)(wav)
    theirs = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=512, hop_length=128, n_mels=40, f_min=64.0, normalized=True, center=False
    )(F.pad(wav, (192, 192 + 96), "reflect"))  # 4000 is 31.25 hops
    torch.testing.assert_close(ours, theirs.squeeze(1), rtol=1e-4, atol=1e-6)


def test_encodec_divides_by_twice_the_number_of_scales():
    real, fake = speechlike(0), speechlike(1)
    total = 0.0
    for window in ENCODEC["windows"]:
        mel = MelSpectrogram(RATE, window, 64, 64.0, power=2, normalized=True)
        x, y = mel(real), mel(fake)
        total += F.l1_loss(x, y) + F.mse_loss((x + 1e-5).log10(), (y + 1e-5).log10())
    torch.testing.assert_close(MultiScaleMel(RATE, **ENCODEC)(real, fake), total / 10)


def test_mel_losses_of_an_attenuated_signal():
    noise = torch.randn(1, 1, 8000, generator=torch.Generator().manual_seed(0))  # far above the floor in all bands
    dac = MultiScaleMel(RATE, windows=(256, 1024), mels=(20, 40))
    torch.testing.assert_close(dac(noise, noise * 10**-0.5), torch.tensor(0.5), rtol=1e-3, atol=0)  # log10 of -10 dB
    soundstream = SoundStreamMel(RATE, windows=(512,), mels=16, floor=1e-9)
    linear = (1 - math.exp(-1)) * soundstream.scales[0](noise).sum(1).mean()
    log = math.sqrt(256) * math.sqrt(16)  # 1 neper in every band
    torch.testing.assert_close(soundstream(noise, noise * math.exp(-1)), linear + log, rtol=1e-3, atol=0)


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


def test_a_tone_is_in_its_band():
    centres = (torch.arange(6) + 0.5) / 12  # cycles per sample
    tones = torch.sin(2 * torch.pi * centres[:, None] * torch.arange(3000)).unsqueeze(1)
    energy = PQMF(6)(tones)[..., 50:-50].square().mean(-1)  # [tone, band]
    assert (energy.diagonal() / energy.sum(1)).min() > 0.999


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiScaleMel(RATE, windows=(64, 128), mels=(5,)), "one per window"),
        (lambda: MultiScaleMel(RATE, distance="l3"), "l1, l2"),
        (lambda: MultiScaleMel(RATE, convention="other"), "librosa, torchaudio"),
        (lambda: MelSpectrogram(RATE, window=30, bands=4), "multiple of 4"),
        (lambda: MultiResolutionSTFT(ffts=(512,)), "equally long"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_relative_spectrum_by_its_definition():
    x = 0.1 * torch.randn(2, 1, 8000)
    for part, expected in ({"magnitude": 0.0}, 1.0), ({"complex": 0.0}, 1.0), ({}, 2.0):
        loss = RelativeSpectrum(**part)
        assert float(loss(x, torch.zeros_like(x))) == pytest.approx(expected, rel=0.01)
        assert float(loss(10 * x, 9 * x)) == pytest.approx(0.1 * expected, rel=0.01)  # relative to the target's level
    assert float(RelativeSpectrum(complex=0.0)(x, -x)) == pytest.approx(0.0, abs=1e-6)  # magnitudes have no phase
    assert float(RelativeSpectrum(magnitude=0.0)(x, -x)) == pytest.approx(2.0, rel=0.01)


def gradients(rank, parts):
    """Of every loss, at one rank's part of a batch whose examples differ in level; and whether all are finite at equal
    signals."""
    level = torch.tensor([1.0, 0.3, 0.01, 0.1])[:, None, None]
    real, fake = ((level * speechlike(seed, 4))[parts[rank]] for seed in (0, 1))
    fake.requires_grad_()
    found = {name: torch.autograd.grad(LOSSES[name]()(real, fake), fake)[0] for name in LOSSES}
    equal = real.clone().requires_grad_()
    finite = [torch.autograd.grad(loss()(real, equal), equal)[0].isfinite().all() for loss in LOSSES.values()]
    return found, all(map(bool, finite))


def test_two_ranks_compute_what_one_does_for_the_whole_batch(pair):
    """DDP takes the mean over ranks, so each one's gradient is twice that of the whole batch."""
    (first, finite), (second, also_finite) = pair(gradients, [slice(2), slice(2, 4)])
    assert finite
    assert also_finite
    for name, expected in gradients(0, [slice(4)])[0].items():
        found = torch.cat([first[name], second[name]]) / 2
        assert (found - expected).norm() < 1e-5 * expected.norm(), name


def test_waveforms_shorter_than_the_longest_window_are_refused():
    wav = torch.zeros(1, 1, 1023)
    with pytest.raises(ValueError, match="longer segments"):
        RelativeSpectrum()(wav, wav)
