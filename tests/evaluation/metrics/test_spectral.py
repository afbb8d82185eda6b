"""Spectral distances against torch, torchaudio and auraloss, and in closed form."""

import warnings

import numpy as np
import pytest
import scipy.signal
import torch
import torchaudio
from auraloss.freq import MultiResolutionSTFTLoss

from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.spectral import (
    MEL_SCALES,
    log_mel,
    mel_cepstral_distortion,
    mel_distance,
    mel_filters,
    stft_distance,
)
from tests.helpers.signals import RATE, noisy, speech


def slaney(rate: int, window: int, n_mels: int) -> np.ndarray:
    """torchaudio's mel bands [window // 2 + 1, n_mels]."""
    options = dict(norm="slaney", mel_scale="slaney")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio warns of empty bands, which DAC's smallest scales have
        return torchaudio.functional.melscale_fbanks(window // 2 + 1, 0.0, rate / 2, n_mels, rate, **options).numpy()


def spectrum(wav: np.ndarray, window: int) -> np.ndarray:
    """torch's magnitudes [F, window // 2 + 1]."""
    wav = torch.from_numpy(wav.astype(np.float64))
    hann = torch.hann_window(window, dtype=torch.float64)
    return torch.stft(wav, window, window // 4, window=hann, return_complex=True).abs().T.numpy()


@pytest.mark.parametrize(("window", "n_mels"), MEL_SCALES)
def test_mel_agrees_with_torch(window, n_mels):
    wav = speech(rate=24_000)
    expected = np.log10(np.maximum(spectrum(wav, window) @ slaney(24_000, window, n_mels), 1e-5))
    np.testing.assert_allclose(log_mel(wav, mel_filters(24_000, window, n_mels)), expected, atol=2e-3)


def test_stft_distance_agrees_with_auraloss():
    # DAC adds its two scales where auraloss averages, and takes log10 of powers where auraloss takes ln of magnitudes
    wav, other = speech(rate=24_000).copy(), noisy(speech(rate=24_000), 10).astype(np.float32)
    windows, hops = [2048, 512], [512, 128]
    loss = MultiResolutionSTFTLoss(windows, hops, windows, w_sc=0, w_log_mag=2 / np.log(10), w_lin_mag=1, eps=1e-10)
    expected = 2 * float(loss(torch.from_numpy(other)[None, None], torch.from_numpy(wav)[None, None]))
    assert stft_distance(wav, other, 24_000) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(MetricError, match="needs 2048 samples"):
        stft_distance(wav[:2047], wav[:2047], RATE)


def test_a_gain_costs_its_decades_in_each_mel_scale():
    # white noise stays above the clamp in every band that has a bin, so each mel scale contributes log10(2)
    noise = 0.5 * np.random.default_rng(0).standard_normal(RATE)
    bands = sum((mel_filters(RATE, window, n_mels).sum(axis=1) > 0).mean() for window, n_mels in MEL_SCALES)
    assert mel_distance(noise, 2 * noise, RATE) == pytest.approx(bands * np.log10(2), rel=1e-3)


def plain_mcd(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Mel-cepstral distortion at 16 kHz by the cosine matrix of the definition."""
    spectra = spectrum(reference, 512), spectrum(estimate, 512)
    power = (spectra[0] ** 2).sum(axis=1)
    r, e = (np.log(np.maximum(s @ slaney(16_000, 512, 40), 1e-5)) for s in spectra)
    cosines = np.cos(np.pi * np.arange(1, 25) * (np.arange(40)[:, None] + 0.5) / 40)  # [bands, order]
    cepstra = 2 / 40 * (r - e)[10 * np.log10(power / power.max() + 1e-20) >= -40] @ cosines
    return float(np.mean(10 / np.log(10) * np.sqrt(2 * (cepstra**2).sum(axis=1))))


def test_mcd_agrees_with_its_definition():
    wav = speech()
    for other in (noisy(wav, 20), noisy(wav, 5), np.roll(wav, 200)):
        expected = plain_mcd(wav, other)
        assert expected > 1
        assert mel_cepstral_distortion(wav, other, RATE) == pytest.approx(expected, rel=1e-3)


def test_mcd_ignores_what_is_above_8_khz_and_pauses():
    wav = speech(rate=48_000).astype(np.float64)
    hiss = 0.01 * np.random.default_rng(0).standard_normal(len(wav))
    above, below = (
        scipy.signal.sosfilt(scipy.signal.butter(12, 10_000, side, fs=48_000, output="sos"), hiss)
        for side in ("highpass", "lowpass")
    )
    assert mel_cepstral_distortion(wav, wav + below, 48_000) > 3
    assert mel_cepstral_distortion(wav, wav + above, 48_000) < 0.2
    murmur = 1e-4 * np.random.default_rng(1).standard_normal(48_000)
    paused, murmured = np.concatenate([wav, np.zeros(48_000)]), np.concatenate([wav, murmur])
    assert mel_cepstral_distortion(paused, murmured, 48_000) < 0.05
    assert mel_distance(paused, murmured, 48_000) > 0.3
