"""Properties of all metrics, and which of them depend on a gain, a delay, the polarity."""

import contextlib

import numpy as np
import pytest

from codec.evaluation.metrics.base import MetricError, MissingError
from codec.evaluation.metrics.table import METRICS, OPTIONAL, choose
from tests.helpers.signals import RATE, noisy, speech

BEST = dict.fromkeys(METRICS, 0) | {
    "pesq_wb": pytest.approx(4.644, abs=0.001),
    "pesq_nb": pytest.approx(4.549, abs=0.001),
    "stoi": pytest.approx(1),
    "estoi": pytest.approx(1),
    "si_sdr": pytest.approx(156.5, abs=0.1),
}
SCORE_SILENCE = {"mel_distance", "stft_distance"}  # for these it is a spectrum like others
DEPEND_ON_GAIN = {"mel_distance", "stft_distance", "loudness_difference"}
PITCH = {"f0_rmse", "gross_pitch_error", "voicing_error"}  # silence is unvoiced: the worst value of a clip
IGNORE_DELAY = {
    "pesq_wb",
    "pesq_nb",
    "loudness_difference",
    "gross_pitch_error",
}  # PESQ aligns the two signals by design
all_metrics = pytest.mark.parametrize("name", METRICS)


@all_metrics
def test_identity_is_the_best_value_and_more_noise_is_worse(name):
    wav, other, metric = speech(2.0), speech(2.0, 24_000), METRICS[name]
    assert metric.function(other, other, 24_000) == BEST[name]
    scores = [metric.function(wav, wav, RATE), *(metric.function(wav, noisy(wav, snr), RATE) for snr in (30, 0))]
    assert scores[0] == BEST[name]
    assert scores == sorted(scores, reverse=metric.higher_is_better)
    counts_frames = scores[0] < scores[-1] if name == "voicing_error" else name == "gross_pitch_error"
    assert len(set(scores)) == len(scores) or counts_frames


@all_metrics
def test_gain_delay_and_polarity(name):
    wav, metric = speech(2.0), METRICS[name]
    same, quieter, late = (metric.function(wav, other, RATE) for other in (wav, 0.5 * wav, np.roll(wav, RATE // 50)))
    if name in DEPEND_ON_GAIN:
        assert (quieter < same) == metric.higher_is_better
    else:
        assert quieter == pytest.approx(same, rel=0.01, abs=0.02)
    if name in IGNORE_DELAY:
        assert late == pytest.approx(same, abs=0.2)
    else:
        assert (late < same) == metric.higher_is_better
        assert late != pytest.approx(same, rel=0.01)
    other = noisy(wav, 15)
    assert metric.function(wav, -other, RATE) == pytest.approx(metric.function(wav, other, RATE), rel=1e-3)


@all_metrics
def test_audio_without_a_score_is_refused(name):
    wav, function = speech(2.0), METRICS[name].function
    with pytest.raises(ValueError, match="equal length"):
        function(wav, wav[:-1], RATE)
    with pytest.raises(MetricError, match="estimate has samples that are not finite"):
        function(wav, np.where(np.arange(len(wav)) == 100, np.nan, wav), RATE)
    silence = np.zeros(len(wav))
    if name in SCORE_SILENCE:
        assert function(wav, silence, RATE) > 2 * function(wav, wav / 2, RATE)
    else:
        if name in PITCH:
            assert function(wav, silence, RATE) > function(wav, noisy(wav, 0), RATE)
        for pair, role in (((wav, silence), "estimate"), ((silence, wav), "reference"))[name in PITCH :]:
            with pytest.raises(MetricError, match=f"{role} is silent"):
                function(*pair, RATE)
    short = wav[RATE // 4 :][: RATE // 20]
    if name != "si_sdr":
        with pytest.raises(MetricError, match="needs"):
            function(short, short, RATE)
    for samples in (0, 1, 2, 300, 700, 1700):  # no other error, whatever the length
        with contextlib.suppress(MetricError):
            assert np.isfinite(function(wav[RATE // 4 :][:samples], wav[RATE // 4 :][:samples], RATE))


def test_choose_by_name():
    assert choose() == METRICS
    assert list(choose(["stoi", "mcd"])) == ["stoi", "mcd"]
    assert not set(METRICS) & set(OPTIONAL)
    with pytest.raises(MissingError, match=r"no metric pesk; there are pesq_wb, .*visqol"):
        choose(["stoi", "pesk"])
