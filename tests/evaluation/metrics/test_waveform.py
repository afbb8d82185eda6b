"""SI-SDR and loudness against their definitions."""

import numpy as np
import pytest
import scipy.signal

from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.waveform import loudness_difference, si_sdr
from tests.helpers.signals import RATE, speech


@pytest.mark.parametrize("snr", [-10, 13, 60])
def test_si_sdr_is_the_snr_of_orthogonal_noise_and_ignores_scale_and_offset(snr):
    wav = speech().astype(np.float64)
    wav -= wav.mean()
    noise = np.random.default_rng(0).standard_normal(len(wav))
    noise -= noise.mean()
    noise -= (noise @ wav) / (wav @ wav) * wav
    noise *= np.sqrt((wav @ wav) / (noise @ noise)) * 10 ** (-snr / 20)
    for estimate in (wav + noise, 0.01 * (wav + noise) + 0.2, -3 * (wav + noise)):
        assert si_sdr(wav, estimate, RATE) == pytest.approx(snr)


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_loudness_difference_of_a_gain_is_its_decibels(rate):
    wav = speech(rate=rate)
    for gain in (-20, -0.5, 5):  # 5 dB exceed full scale: nothing clips
        scaled = wav * 10 ** (gain / 20)
        assert loudness_difference(wav, scaled, rate) == pytest.approx(abs(gain), abs=1e-6)


def bs1770(wav: np.ndarray) -> float:
    """Gated loudness by the filters that BS.1770-4 prints for 48 kHz (tables 1 and 2), block by block."""
    first = [1.53512485958697, -2.69169618940638, 1.19839281085285], [1, -1.69065929318241, 0.73248077421585]
    second = [1.0, -2.0, 1.0], [1, -1.99004745483398, 0.99007225036621]
    wav = scipy.signal.lfilter(*second, scipy.signal.lfilter(*first, wav))
    powers = [np.mean(wav[start : start + 19_200] ** 2) for start in range(0, len(wav) - 19_200 + 1, 4_800)]

    def loudness(some):
        return -0.691 + 10 * np.log10(np.mean(some))

    powers = [p for p in powers if loudness(p) > -70]
    return loudness([p for p in powers if loudness(p) > loudness(powers) - 10])


def test_loudness_agrees_with_the_tables_of_the_standard():
    wav = speech(rate=48_000)
    tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(len(wav)) / 48_000)
    assert bs1770(tone) == pytest.approx(-23.01, abs=0.02)  # the standard's own example: -3.01 at full scale
    expected = abs(bs1770(tone) - bs1770(wav))
    assert expected > 0.5
    assert loudness_difference(tone, wav, 48_000) == pytest.approx(expected, abs=0.05)


def test_pauses_are_gated_out_and_a_signal_under_the_gate_has_no_loudness():
    wav, hiss = speech(2.0), 1e-3 * np.random.default_rng(0).standard_normal(6 * RATE)
    padded, louder = np.concatenate([wav, np.zeros(6 * RATE)]), np.concatenate([2 * wav, hiss])
    assert loudness_difference(padded, louder, RATE) == pytest.approx(20 * np.log10(2), abs=0.05)
    with pytest.raises(MetricError, match="-70 LUFS"):
        loudness_difference(wav, 1e-3 * wav, RATE)
