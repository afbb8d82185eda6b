import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from codec.evaluation.metrics import pitch as module
from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.pitch import f0_error, track, voicing_error
from tests.helpers.signals import RATE, noisy, speech


def voice(pitch: np.ndarray | float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """[T] harmonics of `pitch` (Hz, a number or [T]) up to 3 kHz, falling by 6 dB per octave."""
    pitch = np.broadcast_to(pitch, int(seconds * rate))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    return 0.1 * sum(np.sin(k * phase + k) / k for k in range(1, 1 + int(3_000 / pitch.max())))


def hiss(samples: int, seed: int = 0) -> np.ndarray:
    return 0.05 * np.random.default_rng(seed).standard_normal(samples)


def slow_track(wav: np.ndarray, start: int) -> float:
    """Steps 1 to 4 of the YIN paper at one frame, sum by sum -> period in samples, 0 where no dip is under 0.2."""
    wav = wav[start : start + 667].astype(np.float64)
    difference = [sum((wav[j] - wav[j + lag]) ** 2 for j in range(400)) for lag in range(268)]
    normalised = [1.0]
    for lag in range(1, 268):
        normalised.append(difference[lag] * lag / sum(difference[1 : lag + 1]))
    for lag in range(32, 267):
        low = normalised[lag]
        if low < 0.2 and low <= normalised[lag - 1] and low < normalised[lag + 1]:
            return lag
    return 0


def test_track_agrees_with_the_paper_sum_by_sum():
    wav = noisy(speech(), 10)
    found = track(wav)
    wav = sosfiltfilt(butter(4, 1_000, fs=RATE, output="sos"), wav - wav.mean())
    voiced = 0
    for frame in range(20, 60, 4):
        expected = slow_track(wav, 160 * frame)
        voiced += expected > 0
        if expected:
            assert RATE / found[frame] == pytest.approx(expected, abs=0.5001)  # step 5 moves it by half a sample
        else:
            assert found[frame] == 0
    assert 3 <= voiced <= 9


@pytest.mark.parametrize("pitch", [65, 100, 147.3, 220, 311.1, 480])
def test_track_finds_a_steady_pitch(pitch):
    found = track(voice(pitch))
    assert (found > 0).all()
    assert 1200 * np.abs(np.log2(found / pitch)).max() < 5  # cents


def test_track_follows_a_vibrato():
    t = np.arange(2 * RATE) / RATE
    pitch = 180 * 2 ** (0.2 * np.sin(2 * np.pi * 3 * t))
    found = track(voice(pitch))
    centre = 160 * np.arange(len(found)) + 333  # the windows' middle, halfway between the two that are compared
    assert 1200 * np.abs(np.log2(found / pitch[centre])).max() < 60


def test_track_of_noise_and_silence_is_unvoiced():
    assert (track(hiss(2 * RATE)) > 0).mean() < 0.02
    half = np.concatenate([voice(150, 1.0), np.zeros(RATE)])
    found = track(half)
    assert (found[:90] > 0).all()
    assert (found[105:] == 0).all()


def test_long_signals_are_tracked_in_blocks():
    wav = voice(150, 25.0)  # 2500 frames
    assert 1200 * np.abs(np.log2(track(wav) / 150)).max() < 5


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("cents", [-1200, -80, 10, 50, 300])
def test_f0_error_of_a_shift_is_its_cents(cents, rate):
    reference, estimate = voice(200, rate=rate), voice(200 * 2 ** (cents / 1200), rate=rate)
    assert f0_error(reference, estimate, rate) == pytest.approx(abs(cents), abs=2)
    assert voicing_error(reference, estimate, rate) == 0


def test_f0_error_is_a_root_mean_square():
    # right for three quarters of the time, 100 cents off in the last: 50
    reference = voice(200, 4.0)
    estimate = voice(200 * 2 ** (np.where(np.arange(4 * RATE) < 3 * RATE, 0, 100) / 1200), 4.0)
    assert f0_error(reference, estimate, RATE) == pytest.approx(50, abs=1)


def test_f0_error_leaves_unvoiced_frames_to_the_voicing_error():
    reference, estimate = voice(200), voice(200 * 2 ** (50 / 1200))
    estimate[RATE:] = hiss(RATE)
    assert f0_error(reference, estimate, RATE) == pytest.approx(50, abs=3)
    assert voicing_error(reference, estimate, RATE) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_voicing_error_is_the_share_of_the_pattern_that_differs(share):
    samples = 4 * RATE
    reference = np.where(np.arange(samples) < samples // 2, voice(150, 4.0), hiss(samples))
    # voiced for too long, and for too short
    for edge in (samples // 2 + int(share * samples), samples // 2 - int(share * samples)):
        edge = min(max(edge, 0), samples)
        estimate = np.where(np.arange(samples) < edge, voice(150, 4.0), hiss(samples, 1))
        expected = abs(edge - samples // 2) / samples
        assert voicing_error(reference, estimate, RATE) == pytest.approx(expected, abs=0.03)


def test_no_common_voice_has_no_f0_error():
    wav, noise = voice(200), hiss(2 * RATE)
    with pytest.raises(MetricError, match=r"voiced in both; here are \d\."):
        f0_error(wav, noise, RATE)
    assert voicing_error(wav, noise, RATE) == pytest.approx(1, abs=0.02)
    with pytest.raises(MetricError, match="no frame of the reference is voiced"):
        voicing_error(0.01 * np.random.default_rng(3).standard_normal(2000), voice(200)[:2000], RATE)


def test_both_metrics_share_one_track_of_each_signal_and_keep_one_pair(monkeypatch):
    tracked = []
    monkeypatch.setattr(module, "track", lambda wav: tracked.append(len(wav)) or track(wav))
    module._tracked.clear()
    wav, other = speech(), noisy(speech(), 10)
    for reference, estimate in ((wav, other), (other, wav), (wav, wav)):
        f0_error(reference, estimate, RATE)
        voicing_error(reference, estimate, RATE)
    assert len(tracked) == 2
    for seed in range(3):
        voicing_error(speech(seed=seed), other, RATE)
    assert len(module._tracked) == 2


def test_a_shared_track_is_not_that_of_another_signal_or_rate():
    wav, changed = voice(200), voice(200)
    expected = f0_error(wav, voice(210), RATE)
    changed[RATE:] = voice(220)[RATE:]  # in place, as buffers are used again
    first = f0_error(wav, changed, RATE)
    changed[:] = voice(210)
    assert f0_error(wav, changed, RATE) == expected != first
    # half the rate is half the pitch, for both
    assert f0_error(wav, changed, RATE // 2) == pytest.approx(expected, abs=2)
    module._tracked.clear()
    assert f0_error(wav, changed, RATE) == expected
