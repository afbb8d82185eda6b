"""Augmentation."""

import numpy as np
import pytest
import torch

from codec.data.augment import Augment, AugmentedCrops
from codec.data.folder import FolderCorpus

WAV = 0.1 * torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))


def test_it_is_a_function_of_the_rng():
    augment = Augment(noise=(5, 20), colour="pink")
    one, two, three = (augment(WAV, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


def test_gain_stays_in_range_and_never_clips():
    augment = Augment(gain=(-12, 6), flip=0)
    for seed in range(30):
        ratio = augment(WAV, np.random.default_rng(seed)) / WAV
        assert 10 ** (-12 / 20) * 0.999 <= ratio.mean() <= 10 ** (6 / 20) * 1.001
        assert augment(WAV / WAV.abs().max(), np.random.default_rng(seed)).abs().max() <= 1


def test_flip_has_its_probability():
    augment = Augment(gain=(0, 0), flip=0.25)
    flipped = [bool((augment(WAV, np.random.default_rng(seed)) * WAV).sum() < 0) for seed in range(400)]
    assert 0.17 < np.mean(flipped) < 0.33


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_has_the_ratio_and_the_colour(colour):
    augment = Augment(gain=(0, 0), flip=0, noise=(10, 10), colour=colour)
    noise = augment(WAV, np.random.default_rng(0)) - WAV
    assert 10 * torch.log10(WAV.pow(2).mean() / noise.pow(2).mean()) == pytest.approx(10, abs=0.3)
    power = torch.fft.rfft(noise[0]).abs().pow(2)
    octaves = 10 * torch.log10(power[1000:2000].mean() / power[2000:4000].mean())
    assert octaves == pytest.approx(3.0 if colour == "pink" else 0.0, abs=0.5)


def test_augmented_crops_depend_on_seed_and_number_alone(folder):
    crops = FolderCorpus(folder, 16_000).crops(4000, 0)
    one, two = (AugmentedCrops(crops, Augment(), 0) for _ in range(2))
    later = two[9]["wav"]
    assert torch.equal(one[3]["wav"], two[3]["wav"])
    assert torch.equal(one[9]["wav"], later)
    assert not torch.equal(one[3]["wav"], crops[3]["wav"])


def test_an_unknown_colour_is_refused():
    with pytest.raises(ValueError, match="white, pink"):
        Augment(colour="blue")
