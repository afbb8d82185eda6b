"""F0 and voicing: the tracker against the paper, and errors that are known beforehand."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.pitch import f0_rmse, gross_pitch_error, track, voicing_error
from tests.helpers.signals import RATE, noisy, speech


def voice(pitch: np.ndarray | float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """[T] harmonics of `pitch` (Hz, a number or [T]) up to 3 kHz, falling by 6 dB per octave."""
    pitch = np.broadcast_to(pitch, int(seconds * rate))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    return 0.1 * sum(np.sin(k * phase + k) / k for k in range(1, 1 + int(3_000 / pitch.max())))


def hiss(samples: int, seed: int = 0) -> np.ndarray:
    return 0.05 * np.random.default_rng(seed).standard_normal(samples)


def cents(found: np.ndarray, pitch: np.ndarray | float) -> float:
    return 1200 * np.abs(np.log2(found / pitch)).max()


def plain_period(wav: np.ndarray, start: int) -> int:
    """Steps 1 to 4 of the YIN paper at one frame -> period in samples, 0 where no dip is under 0.2."""
    wav = wav[start : start + 667]
    difference = np.array([np.square(wav[:400] - wav[lag : lag + 400]).sum() for lag in range(268)])
    normalised = [1.0, *(difference[lag] * lag / difference[1 : lag + 1].sum() for lag in range(1, 268))]
    for lag in range(32, 267):
        if normalised[lag] < 0.2 and normalised[lag - 1] >= normalised[lag] < normalised[lag + 1]:
            return lag
    return 0


def test_track_agrees_with_the_paper():
    wav = noisy(speech(), 10)
    found = track(wav)
    wav = sosfiltfilt(butter(4, 1_000, fs=RATE, output="sos"), wav - wav.mean())
    expected = {frame: plain_period(wav, 160 * frame) for frame in range(20, 60, 4)}
    assert sum(period > 0 for period in expected.values()) >= 4
    for frame, period in expected.items():
        if period:
            assert RATE / found[frame] == pytest.approx(period, abs=0.5001)  # step 5 moves it by half a sample


@pytest.mark.parametrize("pitch", [65, 147.3, 480])
def test_track_finds_a_steady_pitch(pitch):
    assert cents(track(voice(pitch)), pitch) < 5


def test_track_follows_a_vibrato_in_blocks_of_a_long_signal():
    t = np.arange(12 * RATE) / RATE  # 1200 frames
    pitch = 180 * 2 ** (0.2 * np.sin(2 * np.pi * 3 * t))
    found = track(voice(pitch, 12.0))
    centre = 160 * np.arange(len(found)) + 333  # the windows' middle, halfway between the two that are compared
    assert cents(found, pitch[centre]) < 60


def test_track_of_noise_and_silence_is_unvoiced():
    assert (track(hiss(RATE)) > 0).mean() < 0.02
    found = track(np.concatenate([voice(150, 1.0), np.zeros(RATE)]))
    assert (found[:90] > 0).all()
    assert (found[105:] == 0).all()


def vowel(pitch: np.ndarray, formants=((850, 90), (1220, 110), (2810, 170), (3800, 250))) -> np.ndarray:
    """[T] a female /a/ (Peterson and Barney 1952) of the pitch [T] in Hz: harmonics through two-pole formants."""
    wav, phase = np.zeros(len(pitch)), 2 * np.pi * np.cumsum(pitch) / RATE
    for k in range(1, 1 + int(7_500 / pitch.max())):
        z, response = np.exp(-2j * np.pi * k * pitch / RATE), 1 / k
        for frequency, width in formants:
            radius, turn = np.exp(-np.pi * width / RATE), 2 * np.cos(2 * np.pi * frequency / RATE)
            response = response / (1 - radius * turn * z + radius**2 * z**2)
        wav += np.abs(response) * np.cos(k * phase + np.angle(response))
    return 0.1 * wav / wav.std()


@pytest.mark.parametrize("base", [180, 200, 210, 220, 240, 280])
def test_track_does_not_lock_on_a_formant(base):
    pitch = base * 2 ** (0.15 * np.sin(3 * np.pi * np.arange(2 * RATE) / RATE))
    found = track(vowel(pitch))
    assert (found > 0).all()
    assert (np.abs(found / pitch[160 * np.arange(len(found)) + 333] - 1) < 0.2).all()


@pytest.mark.parametrize(("rate", "shift"), [(16_000, -250), (22_050, 50), (48_000, 300)])
def test_f0_error_of_a_shift_is_its_cents(shift, rate):
    reference, estimate = voice(200, rate=rate), voice(200 * 2 ** (shift / 1200), rate=rate)
    assert f0_rmse(reference, estimate, rate) == pytest.approx(abs(shift), abs=2)
    assert voicing_error(reference, estimate, rate) == gross_pitch_error(reference, estimate, rate) == 0


def test_errors_are_a_root_mean_square_over_frames_voiced_in_both_and_the_share_of_frames_that_differ():
    # right for three quarters of the time, 100 cents off in the last: 50
    reference = voice(200, 4.0)
    estimate = voice(200 * 2 ** (np.where(np.arange(4 * RATE) < 3 * RATE, 0, 100) / 1200), 4.0)
    assert f0_rmse(reference, estimate, RATE) == pytest.approx(50, abs=1)
    estimate = voice(200 * 2 ** (50 / 1200), 4.0)
    estimate[2 * RATE :] = hiss(2 * RATE)
    assert f0_rmse(reference, estimate, RATE) == pytest.approx(50, abs=3)
    for pair in ((reference, estimate), (estimate, reference)):
        assert voicing_error(*pair, RATE) == pytest.approx(0.5, abs=0.03)


def test_an_octave_is_a_gross_error_and_none_of_the_fine_ones():
    reference = voice(200, 4.0)
    estimate = voice(np.where(np.arange(4 * RATE) < 3 * RATE, 200 * 2 ** (30 / 1200), 400), 4.0)
    assert f0_rmse(reference, estimate, RATE) == pytest.approx(30, abs=3)
    assert gross_pitch_error(reference, estimate, RATE) == pytest.approx(0.25, abs=0.02)
    assert gross_pitch_error(reference, voice(400, 4.0), RATE) == 1


@pytest.mark.parametrize(
    "estimate", [hiss(2 * RATE), np.zeros(2 * RATE), voice(420)], ids=["hiss", "silence", "octave"]
)
def test_a_clip_stays_however_bad_the_estimate(estimate):
    """Which clips have a score depends on the reference alone: a worse codec has no better mean over fewer clips."""
    reference = voice(200)
    assert f0_rmse(reference, estimate, RATE) == pytest.approx(386.3, abs=0.1)
    assert gross_pitch_error(reference, estimate, RATE) == 1
    lost = not (track(estimate) > 0).any()
    assert voicing_error(reference, estimate, RATE) == (1 if lost else 0)


@pytest.mark.parametrize("metric", [f0_rmse, gross_pitch_error, voicing_error])
def test_a_reference_without_a_voice_has_no_score(metric):
    whisper = 0.01 * np.random.default_rng(3).standard_normal(2000)
    with pytest.raises(MetricError, match="voiced frames"):
        metric(whisper, voice(200)[:2000], RATE)
    with pytest.raises(MetricError, match="silent"):
        metric(np.zeros(2000), voice(200)[:2000], RATE)


def test_no_track_is_used_for_a_changed_signal_or_another_rate():
    wav, changed = voice(200), voice(210)
    expected = f0_rmse(wav, changed, RATE)
    changed[RATE:] = voice(220)[RATE:]  # in place, as buffers are used again
    assert f0_rmse(wav, changed, RATE) != expected
    assert f0_rmse(wav, voice(210), RATE // 2) == pytest.approx(expected, abs=2)  # half the pitch, for both
