"""The contract of discriminators, at small widths, and the structure of each."""

import pytest
import torch

from codec.discriminators.base import DiscriminatorSet, normalize_peak
from codec.discriminators.mfd import MultiFrequency
from codec.discriminators.mpd import MultiPeriod
from codec.discriminators.mrd import MultiResolution
from codec.discriminators.msd import MultiScale
from codec.discriminators.msstft import MultiScaleSTFT
from codec.layers.spectrogram import Spectrogram
from tests.helpers.parts import count

SMALL = {
    "msd": lambda: MultiScale(width=4),
    "mpd": lambda: MultiPeriod(periods=(2, 3, 5), widths=(4, 8, 8)),
    "mfd": lambda: MultiFrequency(16000, hops=(32, 128), hidden=(32, 64)),
    "msstft": lambda: MultiScaleSTFT(windows=(128, 512), width=4),
    "mrd": lambda: MultiResolution(windows=(256, 512), width=4),
}
SPECTRAL = ("mfd", "msstft", "mrd")


@pytest.fixture(params=SMALL)
def name(request):
    return request.param


@pytest.fixture
def disc(name):
    torch.manual_seed(0)
    return SMALL[name]()


def waves(batch=2, samples=2001, seed=0):  # an odd length: nothing depends on divisibility
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_maps_have_the_batch_and_end_in_logits_of_one_channel(disc):
    both, again, alone = disc(waves(2)), disc(waves(2)), disc(waves(2)[:1])
    for maps, same, one in zip(both, again, alone, strict=True):
        assert len(maps) >= 3
        assert all(m.shape[0] == 2 and m.numel() > 0 for m in maps)
        assert maps[-1].shape[1] == 1
        assert all(torch.equal(a, b) for a, b in zip(maps, same, strict=True))
        torch.testing.assert_close(maps[-1][:1], one[-1], rtol=1e-4, atol=1e-5)  # items are independent


@pytest.mark.parametrize("level", [1.0, 0.0], ids=["noise", "silence"])
def test_gradients_reach_the_waveform_and_every_parameter(disc, level):
    wav = (level * waves()).requires_grad_()
    sum(one.square().mean() for maps in disc(wav) for one in maps).backward()
    assert wav.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in disc.parameters())
    if level:
        assert wav.grad.abs().sum() > 0


def test_autocast_reaches_the_convolutions_and_not_the_spectra(name, disc):
    inputs = []
    first = next(m for m in disc.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _, args: inputs.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        maps = disc(waves().bfloat16() if name in SPECTRAL else waves())
    assert set(inputs) == {torch.float32}
    assert all(one.dtype == torch.bfloat16 for each in maps for one in each)


def test_the_state_is_weights_only(disc):
    assert set(disc.state_dict()) == {name for name, _ in disc.named_parameters()}


@pytest.mark.parametrize("name", SPECTRAL)
def test_short_waveforms_are_refused(disc):
    with pytest.raises(ValueError, match=r"too short .* needs at least [0-9]+"):
        disc(waves(samples=100))


def test_the_stated_shortest_waveform_is_long_enough():
    MultiFrequency(16000, hops=(32, 128), hidden=(32, 32))(waves(samples=8 * 128))
    MultiScaleSTFT(windows=(512,), width=4)(waves(samples=512))


def test_msd_scales_are_at_halved_rates_with_level_edges():
    disc, lengths = MultiScale(width=4), []
    for scale in disc.scales:
        scale.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[-1]))
    assert [maps[-1].shape[-1] for maps in disc(waves(samples=8192))] == [32, 16, 8]
    assert lengths == [8192, 4096, 2048]
    torch.testing.assert_close(disc.halve(torch.ones(1, 1, 64)), torch.ones(1, 1, 32))


def test_mpd_columns_are_every_pth_sample():
    disc, seen = MultiPeriod(periods=(3,), widths=(4, 4)), []
    disc.periods[0].layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    disc(torch.arange(12.0)[None, None])
    assert seen[0].shape == (1, 1, 4, 3)
    torch.testing.assert_close(seen[0][0, 0, :, 1], torch.tensor([1.0, 4.0, 7.0, 10.0]))


def test_mfd_input_is_magnitude_and_decibels_of_as_many_bands_as_bins():
    linear, log = MultiFrequency(16000, hops=(64,), hidden=(32,)).spectra[0](waves(1))[0]
    assert linear.shape == log.shape == (2 * 64 + 1, 2001 // 64 + 1)
    assert linear.min() >= 0
    assert log.min() >= 0
    assert log.max() <= 1
    inside = (log > 0) & (log < 1)
    torch.testing.assert_close(log[inside], (0.2 * linear[inside].log10() + 0.8))
    with pytest.raises(ValueError, match="equally long"):
        MultiFrequency(16000, hidden=(32, 64))
    with pytest.raises(ValueError, match="multiples of 32"):
        MultiFrequency(16000, hops=(32,), hidden=(48,))


def test_a_sine_has_the_magnitude_of_the_window_normalisation():
    """|STFT| on a bin's centre is A / 2 times the sum of the window, times the scale."""
    wav = torch.sin(2 * torch.pi * 16 / 256 * torch.arange(2048))[None, None]
    peak = Spectrogram(256, 64, scale=256**-0.5)(wav).abs()[0, 16].mean()
    torch.testing.assert_close(peak, torch.tensor(128 / 2 / 16.0), rtol=1e-3, atol=0)


def test_mrd_bands_partition_the_spectrum():
    for resolution in MultiResolution(width=4).resolutions:
        bins = resolution.spectrogram.window.numel() // 2 + 1
        assert [i for part in resolution.slices for i in range(*part.indices(bins))] == list(range(bins))


def test_parameters_of_encodec_and_dac():
    assert count(MultiScaleSTFT()) == 472_330
    assert count(MultiScaleSTFT(windows=(1024, 2048, 512))) == 283_398
    assert count(MultiPeriod()) + count(MultiResolution()) == 42_519_760


def test_a_set_concatenates_its_members_in_order():
    torch.manual_seed(0)
    msd, mpd = SMALL["msd"](), SMALL["mpd"]()
    together = DiscriminatorSet({"msd": msd, "mpd": mpd})(waves())
    for a, b in zip(together, [*msd(waves()), *mpd(waves())], strict=True):
        assert torch.equal(a[-1], b[-1])
    empty = DiscriminatorSet({})
    assert empty(waves()) == []
    assert count(empty) == 0


def test_a_normalising_set_ignores_gain_and_offset():
    torch.manual_seed(0)
    disc = DiscriminatorSet({"mpd": SMALL["mpd"]()}, normalize=True)
    for a, b in zip(disc(waves()), disc(0.1 * waves() + 0.2), strict=True):
        torch.testing.assert_close(a[-1], b[-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normalize_peak(waves()).abs().amax(-1), torch.full((2, 1), 0.8))
    assert normalize_peak(torch.zeros(1, 1, 9)).eq(0).all()
