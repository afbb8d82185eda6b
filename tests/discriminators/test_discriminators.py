"""What every discriminator must hold, whatever its architecture, on small widths."""

import pytest
import torch

from codec.discriminators.base import DiscriminatorSet, normalize_peak
from codec.discriminators.mfd import MultiFrequency
from codec.discriminators.mpd import MultiPeriod
from codec.discriminators.mrd import MultiResolution
from codec.discriminators.msd import MultiScale
from codec.discriminators.msstft import MultiScaleSTFT
from codec.layers.spectrogram import Spectrogram

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
def critic(name):
    torch.manual_seed(0)
    return SMALL[name]()


def waves(batch=2, samples=4001, seed=0):  # an odd length, so that nothing relies on divisibility
    return torch.rand(batch, 1, samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_every_map_keeps_the_batch_and_every_list_ends_in_one_channel_of_logits(critic):
    for maps in critic(waves(3)):
        assert len(maps) >= 3
        assert all(one.shape[0] == 3 and one.numel() > 0 for one in maps)
        assert maps[-1].shape[1] == 1


def test_gradients_reach_the_waveform_and_every_parameter(critic):
    wav = waves().requires_grad_()
    sum(one.square().mean() for maps in critic(wav) for one in maps).backward()
    assert wav.grad.isfinite().all()
    assert wav.grad.abs().sum() > 0
    # A bias before the reflected frames still counts, so each parameter must have moved something.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())


def test_silence_gives_finite_maps_and_gradients(critic):
    wav = torch.zeros(1, 1, 4001, requires_grad=True)
    maps = critic(wav)
    sum(one.square().mean() for each in maps for one in each).backward()
    assert all(one.isfinite().all() for each in maps for one in each)
    assert wav.grad.isfinite().all()


def test_a_second_call_gives_the_same(critic):
    first, second = critic(waves()), critic(waves())
    assert all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))


def test_items_of_a_batch_do_not_see_each_other(critic):
    both, alone = critic(waves(2)), critic(waves(2)[:1])
    for x, y in zip(both, alone, strict=True):
        torch.testing.assert_close(x[-1][:1], y[-1], rtol=1e-4, atol=1e-5)


def test_autocast_reaches_the_convolutions_and_not_the_spectra(name, critic):
    inputs = []
    first = next(m for m in critic.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _, args: inputs.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        maps = critic(waves().bfloat16() if name in SPECTRAL else waves())
    assert inputs == [torch.float32] * len(inputs)
    assert inputs
    assert all(one.dtype == torch.bfloat16 for each in maps for one in each)


def test_the_checkpoint_holds_weights_only(critic):
    assert set(critic.state_dict()) == {name for name, _ in critic.named_parameters()}


@pytest.mark.parametrize("name", SPECTRAL)
def test_a_short_waveform_ends_in_one_sentence(critic):
    with pytest.raises(ValueError, match=r"too short .* needs at least [0-9]+"):
        critic(waves(samples=100))


def test_the_stated_shortest_waveform_is_long_enough():
    MultiFrequency(16000, hops=(32, 128), hidden=(32, 32))(waves(samples=8 * 128))
    MultiScaleSTFT(windows=(512,), width=4)(waves(samples=512))


def test_scales_of_the_msd_really_shrink():
    critic, lengths = MultiScale(width=4), []
    for scale in critic.scales:
        scale.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[-1]))
    logits = [maps[-1].shape[-1] for maps in critic(waves(samples=8192))]
    assert lengths == [8192, 4096, 2048]
    assert logits == [32, 16, 8]


def test_the_msd_keeps_the_level_at_the_edges():
    level = torch.ones(1, 1, 64)
    torch.testing.assert_close(MultiScale(width=4).halve(level), torch.ones(1, 1, 32))


def test_periods_fold_every_pth_sample_into_a_column():
    critic, seen = MultiPeriod(periods=(3,), widths=(4, 4)), []
    critic.periods[0].layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    wav = torch.arange(12.0)[None, None]
    critic(wav)
    assert seen[0].shape == (1, 1, 4, 3)
    torch.testing.assert_close(seen[0][0, 0, :, 1], torch.tensor([1.0, 4.0, 7.0, 10.0]))


def test_the_mfd_sees_magnitude_and_decibels_of_as_many_bands_as_bins():
    pair = MultiFrequency(16000, hops=(64,), hidden=(32,)).spectra[0]
    linear, log = pair(waves(1))[0]
    assert linear.shape == log.shape == (2 * 64 + 1, 4001 // 64 + 1)
    assert linear.min() >= 0
    assert log.min() >= 0
    assert log.max() <= 1
    heard = (log > 0) & (log < 1)
    torch.testing.assert_close(log[heard], (0.2 * linear[heard].log10() + 0.8))


def test_a_full_scale_sine_has_the_magnitude_of_its_window_normalisation():
    # |STFT| of a sine on a bin's centre is A / 2 times the sum of the window, times the scale.
    wav = torch.sin(2 * torch.pi * 16 / 256 * torch.arange(2048))[None, None]
    peak = Spectrogram(256, 64, scale=256**-0.5)(wav).abs()[0, 16].mean()
    torch.testing.assert_close(peak, torch.tensor(128 / 2 / 16.0), rtol=1e-3, atol=0)


def test_mfd_widths_must_fit_its_hops():
    with pytest.raises(ValueError, match="hops and hidden must be equally long"):
        MultiFrequency(16000, hidden=(32, 64))
    with pytest.raises(ValueError, match="multiples of 32"):
        MultiFrequency(16000, hops=(32,), hidden=(48,))


def test_the_bands_of_the_mrd_cover_the_spectrum_once():
    for resolution in MultiResolution(width=4).resolutions:
        bins = resolution.spectrogram.window.numel() // 2 + 1
        covered = [i for part in resolution.slices for i in range(*part.indices(bins))]
        assert covered == list(range(bins))


def count(module):
    return sum(p.numel() for p in module.parameters())


def folded(module):
    """Parameters after weight norm has been folded in: effective weights and biases."""
    convs = [m for m in module.modules() if isinstance(m, torch.nn.Conv1d | torch.nn.Conv2d)]
    return sum(conv.weight.numel() + conv.bias.numel() for conv in convs)


def test_msstft_has_encodecs_parameters():
    five, three = MultiScaleSTFT(), MultiScaleSTFT(windows=(1024, 2048, 512))
    assert (count(five), folded(five)) == (472_330, 471_685)
    assert (count(three), folded(three)) == (283_398, 283_011)


def test_mpd_and_mrd_have_dacs_parameters():
    assert count(MultiPeriod()) + count(MultiResolution()) == 42_519_760


def test_a_set_concatenates_its_members_in_order():
    torch.manual_seed(0)
    msd, mpd = SMALL["msd"](), SMALL["mpd"]()
    together = DiscriminatorSet({"msd": msd, "mpd": mpd})(waves())
    apart = [*msd(waves()), *mpd(waves())]
    assert len(together) == len(apart) == 6
    assert all(torch.equal(a[-1], b[-1]) for a, b in zip(together, apart, strict=True))


def test_the_empty_set_has_nothing_to_say_and_nothing_to_train():
    none = DiscriminatorSet({})
    assert none(waves()) == []
    assert count(none) == 0


def test_a_normalising_set_ignores_gain_and_offset():
    torch.manual_seed(0)
    critic = DiscriminatorSet({"mpd": SMALL["mpd"]()}, normalize=True)
    for a, b in zip(critic(waves()), critic(0.1 * waves() + 0.2), strict=True):
        torch.testing.assert_close(a[-1], b[-1], rtol=1e-4, atol=1e-5)
    peak = normalize_peak(waves()).abs().amax(-1)
    torch.testing.assert_close(peak, torch.full_like(peak, 0.8))
    assert normalize_peak(torch.zeros(1, 1, 9)).eq(0).all()
