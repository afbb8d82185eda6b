"""What all metrics promise, and which of them hear a gain, a delay, a turned polarity."""

import contextlib

import numpy as np
import pytest

from codec.evaluation.metrics.base import MetricError, MissingError
from codec.evaluation.metrics.table import METRICS, OPTIONAL, choose
from tests.helpers.signals import RATE, noisy, speech

BEST = {
    "pesq_wb": pytest.approx(4.644, abs=0.001),
    "pesq_nb": pytest.approx(4.549, abs=0.001),
    "stoi": pytest.approx(1),
    "estoi": pytest.approx(1),
    "si_sdr": pytest.approx(156.5, abs=0.1),
    "mel_distance": 0,
    "stft_distance": 0,
    "mcd": 0,
    "f0_error": 0,
    "voicing_error": 0,
    "loudness_difference": 0,
}
HEAR_SILENCE = {"mel_distance", "stft_distance"}  # for these it is a spectrum like others
HEAR_GAIN = {"mel_distance", "stft_distance", "loudness_difference"}
DEAF_TO_DELAY = {"pesq_wb", "pesq_nb", "loudness_difference"}  # PESQ aligns the two signals by design


@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("name", METRICS)
def test_identity_is_the_best_value(name, rate):
    wav = speech(rate=rate)
    assert METRICS[name].function(wav, wav, rate) == BEST[name]


@pytest.mark.parametrize("name", METRICS)
def test_more_noise_is_worse(name):
    wav, metric = speech(), METRICS[name]
    scores = [metric.function(wav, noisy(wav, snr), RATE) for snr in (40, 25, 10, 0)]
    assert scores == sorted(scores, reverse=metric.higher_is_better)
    assert len(set(scores)) == len(scores) or (name == "voicing_error" and scores[0] < scores[-1])  # it counts frames


@pytest.mark.parametrize("name", METRICS)
def test_who_hears_a_gain(name):
    wav, metric = speech(), METRICS[name]
    same, quieter = (metric.function(wav, gain * wav, RATE) for gain in (1, 0.5))
    if name in HEAR_GAIN:
        assert (quieter < same) == metric.higher_is_better
    else:
        assert quieter == pytest.approx(same, rel=0.01, abs=0.02)


@pytest.mark.parametrize("name", METRICS)
def test_who_hears_a_delay(name):
    wav, metric = speech(), METRICS[name]
    same, late = (metric.function(wav, np.roll(wav, shift), RATE) for shift in (0, RATE // 50))  # 20 ms
    if name in DEAF_TO_DELAY:
        assert late == pytest.approx(same, abs=0.2)
    else:
        assert (late < same) == metric.higher_is_better
        assert late != pytest.approx(same, rel=0.01)


@pytest.mark.parametrize("name", METRICS)
def test_nobody_hears_the_polarity(name):
    wav, metric = speech(), METRICS[name]
    other = noisy(wav, 15)
    assert metric.function(wav, -other, RATE) == pytest.approx(metric.function(wav, other, RATE), rel=1e-3)


@pytest.mark.parametrize("name", METRICS)
def test_unequal_lengths_are_the_callers_error(name):
    wav = speech()
    with pytest.raises(ValueError, match="equal length"):
        METRICS[name].function(wav, wav[:-1], RATE)


@pytest.mark.parametrize("name", METRICS)
def test_non_finite_samples_have_no_score(name):
    wav = speech()
    broken = wav.copy()
    broken[100] = np.nan
    with pytest.raises(MetricError, match="estimate has samples that are not finite"):
        METRICS[name].function(wav, broken, RATE)


@pytest.mark.parametrize("name", METRICS)
def test_silence_has_no_score(name):
    wav, silence = speech(), np.zeros(3 * RATE)
    if name in HEAR_SILENCE:
        assert METRICS[name].function(wav, silence, RATE) > 2 * METRICS[name].function(wav, wav / 2, RATE)
        return
    with pytest.raises(MetricError, match="estimate is silent"):
        METRICS[name].function(wav, silence, RATE)
    with pytest.raises(MetricError, match="reference is silent"):
        METRICS[name].function(silence, wav, RATE)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "si_sdr"])
def test_short_clips_have_no_score(name):
    wav = speech()[RATE // 4 :][: RATE // 20]
    with pytest.raises(MetricError, match="needs"):
        METRICS[name].function(wav, wav, RATE)


@pytest.mark.parametrize("samples", [0, 1, 2, 300, 700, 1700])
@pytest.mark.parametrize("name", METRICS)
def test_no_length_ends_in_a_trace(name, samples):
    wav = speech()[RATE // 4 :][:samples]
    with contextlib.suppress(MetricError):
        assert np.isfinite(METRICS[name].function(wav, wav, RATE))


def test_choose_by_name():
    assert choose() == METRICS
    assert list(choose(["stoi", "mcd"])) == ["stoi", "mcd"]
    assert list(choose("stoi")) == ["stoi"]
    assert not set(METRICS) & set(OPTIONAL)
    with pytest.raises(MissingError, match=r"no metric pesk; there are pesq_wb, .*visqol"):
        choose(["stoi", "pesk"])


def test_every_metric_says_what_it_is():
    for metric in (METRICS | OPTIONAL).values():
        text = " ".join(metric.function.__doc__.split())
        assert ("higher" if metric.higher_is_better else "lower") + " is better" in text
        assert "rate" in text or "kHz" in text
        assert " in [" in text or "dB" in text
        assert (metric.check is None) == (metric in METRICS.values())
