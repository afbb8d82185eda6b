"""Properties of the metrics, of the processes that compute them, and of the bootstrap interval."""

import os
import signal
import time
import warnings

import numpy as np
import pandas
import pytest

from codec.metrics import (
    MEL_SCALES,
    METRICS,
    Metric,
    MetricError,
    _log_mel,
    _mel_filters,
    bootstrap,
    estoi,
    mel_distance,
    pesq_nb,
    pesq_wb,
    score_clips,
    si_sdr,
    stoi,
)

RATE = 16_000


def speech(seconds: float = 3.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """[T] float32, peak 0.5: a harmonic complex with vibrato and moving formants, syllables at 4 Hz, and
    pauses."""
    generator = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    pitch = generator.uniform(100, 220) * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = [500 + 200 * np.sin(2 * np.pi * 2.1 * t), 1600 + 600 * np.sin(2 * np.pi * 1.3 * t)]
    wav = np.zeros_like(t)
    for k in range(1, 25):
        gain = 0.02 + sum(np.exp(-(((k * pitch - formant) / 200) ** 2)) for formant in formants)
        wav += gain * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 4 * t), 0, 1) ** 0.5
    phrases = np.sin(2 * np.pi * 0.6 * t + 0.3) > -0.6
    wav = (wav + 0.02 * generator.standard_normal(len(t))) * syllables * phrases
    return (0.5 * wav / np.abs(wav).max()).astype(np.float32)


def noisy(wav: np.ndarray, snr: float, seed: int = 1) -> np.ndarray:
    """wav plus white noise at `snr` dB."""
    noise = np.random.default_rng(seed).standard_normal(len(wav))
    return wav + noise * np.sqrt(np.mean(wav**2) / np.mean(noise**2)) * 10 ** (-snr / 20)


# Metrics for the tests of the processes. They live at module level, as a spawned process imports them by
# name.


def kill_on_loud(reference, estimate, sample_rate):
    """Dies the way that PESQ does, on marked clips only."""
    if np.abs(reference).max() > 0.9:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 1.0


def kill_first_time(reference, estimate, sample_rate):
    """Dies once: the marker is a folder whose path the environment carries to the process."""
    marker = os.environ["TEST_METRICS_MARKER"]
    if not os.path.exists(marker):
        os.mkdir(marker)
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def late_if_first(reference, estimate, sample_rate):
    if reference[0] == 0:
        time.sleep(0.3)
    return float(reference[0])


def threads(reference, estimate, sample_rate):
    return float(os.environ["OMP_NUM_THREADS"])


def as_metric(function) -> Metric:
    return Metric(function.__name__, function, "", True)


# -------------------------------------------------------------------------------------------------- functions


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_identity_is_perfect(rate):
    wav = speech(rate=rate)
    assert pesq_wb(wav, wav, rate) == pytest.approx(4.644, abs=0.001)
    assert pesq_nb(wav, wav, rate) == pytest.approx(4.549, abs=0.001)
    assert stoi(wav, wav, rate) == pytest.approx(1)
    assert estoi(wav, wav, rate) == pytest.approx(1)
    assert si_sdr(wav, wav, rate) > 100
    assert mel_distance(wav, wav, rate) == 0


@pytest.mark.parametrize("name", METRICS)
def test_more_noise_is_worse(name):
    wav, metric = speech(), METRICS[name]
    scores = [metric.function(wav, noisy(wav, snr), RATE) for snr in (40, 25, 10, 0)]
    assert scores == sorted(scores, reverse=metric.higher_is_better)
    assert len(set(scores)) == len(scores)


@pytest.mark.parametrize("name", ["si_sdr", "mel_distance", "estoi"])
def test_delay_is_worse(name):
    # 20 ms; PESQ is left out, as it aligns the two signals by design
    wav, metric = speech(), METRICS[name]
    same, late = (metric.function(wav, np.roll(wav, shift), RATE) for shift in (0, RATE // 50))
    assert (late < same) == metric.higher_is_better


def test_si_sdr_is_the_snr_of_orthogonal_noise_and_ignores_scale_and_offset():
    wav = speech().astype(np.float64)
    wav -= wav.mean()
    noise = np.random.default_rng(0).standard_normal(len(wav))
    noise -= noise.mean()
    noise -= (noise @ wav) / (wav @ wav) * wav
    noise *= np.sqrt((wav @ wav) / (noise @ noise)) * 10 ** (-13 / 20)
    assert si_sdr(wav, wav + noise, RATE) == pytest.approx(13)
    assert si_sdr(wav, 0.01 * (wav + noise) + 0.2, RATE) == pytest.approx(13)
    assert si_sdr(wav, -3 * (wav + noise), RATE) == pytest.approx(13)


def test_mel_distance_of_a_gain_is_its_decades_per_scale():
    # white noise stays above the clamp in every band that has a bin, so each scale contributes log10(2)
    noise = 0.5 * np.random.default_rng(0).standard_normal(RATE)
    filled = sum((_mel_filters(RATE, window, n_mels).sum(axis=1) > 0).mean() for window, n_mels in MEL_SCALES)
    assert mel_distance(noise, 2 * noise, RATE) == pytest.approx(filled * np.log10(2), rel=1e-3)


@pytest.mark.parametrize(("window", "n_mels"), MEL_SCALES)
def test_mel_agrees_with_torch(window, n_mels):
    torch, torchaudio = pytest.importorskip("torch"), pytest.importorskip("torchaudio")
    wav = torch.from_numpy(speech(rate=24_000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio warns of empty bands, which DAC's smallest scales have
        bands = torchaudio.functional.melscale_fbanks(
            window // 2 + 1, 0.0, 12_000.0, n_mels, 24_000, norm="slaney", mel_scale="slaney"
        )
    spectrum = torch.stft(wav, window, window // 4, window=torch.hann_window(window), return_complex=True)
    expected = (spectrum.abs().T @ bands).clamp(1e-5).log10().numpy()
    actual = _log_mel(wav.numpy(), _mel_filters(24_000, window, n_mels))
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_long_clips_are_scored_in_pieces():
    # 25 s are two pieces of 12.5 s: bad only in the second half, the score lies half way
    wav = speech(25.0)
    half = len(wav) // 2
    damaged = noisy(wav, 5)
    mixed = np.concatenate([wav[:half], damaged[half:]])
    expected = (pesq_wb(wav[:half], wav[:half], RATE) + pesq_wb(wav[half:], damaged[half:], RATE)) / 2
    assert pesq_wb(wav, mixed, RATE) == pytest.approx(expected, abs=0.02)


def test_a_silent_piece_of_the_reference_is_left_out():
    wav = np.concatenate([speech(11.0), np.zeros(11 * RATE, dtype=np.float32)])
    assert pesq_wb(wav, wav, RATE) == pytest.approx(4.644, abs=0.001)


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


@pytest.mark.parametrize("name", [name for name in METRICS if name != "mel_distance"])
def test_silence_has_no_score(name):
    wav, silence = speech(), np.zeros(3 * RATE)
    with pytest.raises(MetricError, match="estimate is silent"):
        METRICS[name].function(wav, silence, RATE)
    with pytest.raises(MetricError, match="reference is silent"):
        METRICS[name].function(silence, wav, RATE)


def test_silence_is_far_in_mel():
    wav = speech()
    assert mel_distance(wav, np.zeros_like(wav), RATE) > 2 * mel_distance(wav, wav / 2, RATE)


@pytest.mark.parametrize("name", ["pesq_wb", "pesq_nb", "stoi", "estoi", "mel_distance"])
def test_short_clips_have_no_score(name):
    wav = speech()[: RATE // 10]
    with pytest.raises(MetricError, match="needs"):
        METRICS[name].function(wav, wav, RATE)


def test_a_clip_with_too_little_speech_has_no_stoi():
    wav = np.zeros(2 * RATE)
    wav[RATE : RATE + RATE // 4] = speech()[RATE // 2 : RATE // 2 + RATE // 4]
    with pytest.raises(MetricError, match="less"):
        stoi(wav, wav, RATE)


def test_estoi_repeats_itself_and_leaves_the_global_generator_alone():
    wav = speech()
    # bands without energy are filled with that noise
    gaps = np.where(np.arange(len(wav)) % 8000 < 4000, 0, noisy(wav, 10))
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first = estoi(wav, gaps, RATE)
    assert np.random.random() == expected  # noqa: NPY002
    assert estoi(wav, gaps, RATE) == first


# -------------------------------------------------------------------------------------------------- processes


def test_processes_agree_with_this_process_and_list_what_failed():
    wavs = [speech(2.0, seed=seed) for seed in range(3)]
    pairs = [(f"clip{i}", wav, noisy(wav, 10).astype(np.float32)) for i, wav in enumerate(wavs)]
    pairs.insert(1, ("silent", wavs[0], np.zeros_like(wavs[0])))
    here, here_failures = score_clips(iter(pairs), RATE, workers=0)
    there, there_failures = score_clips(iter(pairs), RATE, workers=2)
    assert list(here.columns) == ["clip", *METRICS]
    assert list(here["clip"]) == ["clip0", "silent", "clip1", "clip2"]
    pandas.testing.assert_frame_equal(here, there, rtol=1e-6)  # BLAS adds in another order with more threads
    assert here_failures == there_failures
    assert {f["clip"] for f in here_failures} == {"silent"}
    assert [f["metric"] for f in here_failures] == [name for name in METRICS if name != "mel_distance"]
    assert here_failures[0]["reason"] == "The estimate is silent."
    assert here.drop(columns="clip").isna().sum().sum() == len(here_failures)


def test_a_crash_loses_its_own_cell_only():
    wav = speech(1.0)
    loud = wav / np.abs(wav).max()
    pairs = [(f"clip{i}", loud if i == 2 else wav, noisy(wav, 10)) for i in range(5)]
    metrics = {"si_sdr": METRICS["si_sdr"], "killer": as_metric(kill_on_loud), "stoi": METRICS["stoi"]}
    table, failures = score_clips(pairs, RATE, metrics, workers=2)
    reason = "The metric killed its process (SIGSEGV)."
    assert failures == [{"clip": "clip2", "metric": "killer", "reason": reason}]
    assert np.isnan(table.loc[2, "killer"])
    assert table.isna().sum().sum() == 1
    assert list(table["clip"]) == [f"clip{i}" for i in range(5)]


def test_a_process_that_the_machine_killed_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_METRICS_MARKER", str(tmp_path / "died"))
    wav = speech(1.0)
    table, failures = score_clips([("a", wav, wav)], RATE, {"once": as_metric(kill_first_time)}, workers=1)
    assert (tmp_path / "died").exists()
    assert failures == []
    assert table.loc[0, "once"] == 1


def test_order_is_that_of_the_clips():
    # the first clip is the last to be scored
    pairs = [(f"clip{i}", np.full(4, i, dtype=np.float32), np.zeros(4)) for i in range(6)]
    table, _ = score_clips(pairs, RATE, {"late": as_metric(late_if_first)}, workers=2)
    assert list(table["late"]) == list(range(6))


def test_no_metrics_still_give_one_row_per_clip():
    pairs = [(f"clip{i}", np.zeros(4), np.zeros(4)) for i in range(6)]
    table, failures = score_clips(pairs, RATE, metrics={}, workers=2)
    assert (len(table), failures) == (6, [])


def test_clips_are_read_no_faster_than_they_are_scored():
    # the one process sleeps 0.3 s on each: the last of four is asked for only when three are done
    times = []

    def pairs():
        for i in range(4):
            times.append(time.monotonic())
            yield f"clip{i}", np.zeros(4, dtype=np.float32), np.zeros(4, dtype=np.float32)

    score_clips(pairs(), RATE, {"late": as_metric(late_if_first)}, workers=1)
    assert times[-1] - times[0] > 0.9


def test_processes_use_one_thread():
    before = dict(os.environ)
    pairs = [("a", np.zeros(4), np.zeros(4))]
    table, _ = score_clips(pairs, RATE, {"threads": as_metric(threads)}, workers=1)
    assert table.loc[0, "threads"] == 1
    assert dict(os.environ) == before


def test_unequal_lengths_name_the_clip_and_leave_no_process():
    with pytest.raises(ValueError, match="Clip odd"):
        score_clips([("odd", np.zeros(4), np.zeros(5))], RATE, workers=1)


# -------------------------------------------------------------------------------------------------- intervals


def test_bootstrap_covers_the_true_mean_in_about_95_percent():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(1000):
        interval = bootstrap(generator.normal(3.0, 0.5, size=50), resamples=500, seed=seed)
        hits += interval.low <= 3.0 <= interval.high
    assert 0.915 < hits / 1000 < 0.97  # the percentile bootstrap is known to be a little narrow at n = 50


def test_bootstrap_ignores_nan_and_repeats_itself():
    values = np.random.default_rng(0).normal(size=30)
    with_nan = np.insert(values, [3, 9], np.nan)
    assert bootstrap(with_nan) == bootstrap(values)
    assert bootstrap(values).n == 30
    assert bootstrap(values).mean == pytest.approx(values.mean())
    assert bootstrap([2.0]) == (2, 2, 2, 1)
    empty = bootstrap([np.nan, np.nan])
    assert empty.n == 0
    assert np.isnan(empty[:3]).all()
