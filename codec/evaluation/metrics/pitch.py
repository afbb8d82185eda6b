"""F0 and voicing errors, by YIN (de Cheveigne and Kawahara, JASA 111(4), 2002).

Steps 1 to 5, on 25 ms windows every 10 ms at 16 kHz, 60 to 500 Hz, after a low pass at 1 kHz (without it a little hiss
makes a voice unvoiced). Voicing, which the paper leaves open: the normalised difference has a dip below 0.2, and the
frame is within 40 dB of its signal's loudest. The period is that of the first such dip within 0.1 of the deepest, not
of the first: a formant makes earlier, shallower ones (in 13 % of the frames of a synthetic female /a/ at 180 to 300 Hz;
in 3 % with the threshold at 0.15, which loses breathy voices). Own code: torchaudio's tracker decides no voicing,
librosa's pYIN runs at real time, and WORLD needs a C++ build.
"""

import hashlib
import math

import numpy as np
import scipy.fft
import scipy.signal
import soxr

from codec.evaluation.metrics.base import SILENCE, MetricError, audible_pair, finite_pair

RATE, HOP, WINDOW = 16_000, 160, 400  # Hz; samples (10 ms, 25 ms)
LONGEST, SHORTEST = RATE // 60 + 1, RATE // 500  # periods in samples
PASS = scipy.signal.butter(4, 1_000, fs=RATE, output="sos")
DIP = 0.2  # aperiodic share of the power, about: the paper's 0.1 loses breathy voices
NEAR = 0.1  # of the deepest dip; formants are farther from it, multiples of the period in breathy voices nearer
LOUD = 40.0  # dB under the loudest frame at most
PITCH_SHORTEST = 0.1  # seconds
BLOCK = 1000  # frames at a time, to bound memory
VOICED = 10  # frames of the reference, for a score
GROSS = 0.2  # of the F0: a larger error is a gross one


def f0_rmse(reference, estimate, sample_rate: int) -> float:
    """F0 error: RMSE in cents over frames voiced in both without gross errors, in [0, 386], lower is better, at 16 kHz.

    1200 log2 of the ratio of F0 by YIN (module docstring); both signals are resampled. A gain costs nothing. Frames
    that are lost or grossly wrong do not count, so read it with `voicing_error` and `gross_pitch_error`. If none is
    left it is 386, the largest: which clips have a score depends on the reference alone, in which 0.1 s must be voiced.
    """
    r, e = _tracks("The F0 error", reference, estimate, sample_rate)
    ratio = e[(r > 0) & (e > 0)] / r[(r > 0) & (e > 0)]
    cents = 1200 * np.log2(ratio[~_gross(ratio)])
    return float(np.sqrt(np.mean(np.square(cents)))) if len(cents) else -1200 * math.log2(1 - GROSS)


def gross_pitch_error(reference, estimate, sample_rate: int) -> float:
    """Gross pitch error (Rabiner et al., IEEE TASSP 24(5), 1976), in [0, 1], lower is better, at 16 kHz.

    Share of the frames voiced in both whose F0 is more than 20 % off (Chu and Alwan, ICASSP 2009), such as octave
    errors; 1 if none is voiced in both. Needs 0.1 s voiced in the reference, as `f0_rmse`.
    """
    r, e = _tracks("The gross pitch error", reference, estimate, sample_rate)
    both = (r > 0) & (e > 0)
    return float(np.mean(_gross(e[both] / r[both]))) if both.any() else 1.0


def voicing_error(reference, estimate, sample_rate: int) -> float:
    """Voicing decision error (Chu and Alwan, ICASSP 2009), in [0, 1], lower is better, at 16 kHz.

    Share of 10 ms frames voiced in one signal and unvoiced in the other, by YIN (module docstring); both signals are
    resampled. Pauses count as unvoiced frames: clips with longer pauses have smaller errors. A gain costs nothing.
    Silence is unvoiced. Needs 0.1 s voiced in the reference, as `f0_rmse`.
    """
    r, e = _tracks("The voicing error", reference, estimate, sample_rate)
    return float(np.mean((r > 0) != (e > 0)))


def _gross(ratio: np.ndarray) -> np.ndarray:
    return np.abs(ratio - 1) > GROSS


def _tracks(name: str, reference, estimate, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    reference, estimate = finite_pair(reference, estimate)
    audible_pair(name, reference, reference, sample_rate, PITCH_SHORTEST)  # an estimate may be silent, that is unvoiced
    keys = [(sample_rate, hashlib.blake2b(np.ascontiguousarray(wav)).digest()) for wav in (reference, estimate)]
    if keys != [key for key, _ in _last]:
        tracks = (track(soxr.resample(wav, sample_rate, RATE)) for wav in (reference, estimate))
        _last[:] = zip(keys, tracks, strict=True)
    (_, r), (_, e) = _last
    if (voiced := int((r > 0).sum())) < VOICED:
        raise MetricError(f"{name} needs {VOICED} voiced frames (10 ms) in the reference; here are {voiced}.")
    return r, e if np.ptp(estimate) >= SILENCE else np.zeros_like(e)


# Tracks of the last pair, which both metrics need, by a digest of the samples: the clips themselves are not kept.
_last: list[tuple[tuple[int, bytes], np.ndarray]] = []


def track(wav: np.ndarray) -> np.ndarray:
    """F0 in Hz [F] of wav [T] at 16 kHz, one value per 10 ms, 0 where unvoiced; T of at least 667 samples."""
    length = WINDOW + LONGEST
    wav = scipy.signal.sosfiltfilt(PASS, wav - wav.mean())
    frames = np.lib.stride_tricks.sliding_window_view(wav, length)[::HOP]  # [F, length], not a copy
    blocks = [frames[start : start + BLOCK] for start in range(0, len(frames), BLOCK)]
    power = np.concatenate([np.mean(np.square(block), axis=-1) for block in blocks])
    pitch = np.concatenate([_pitch(_normalised_difference(block)) for block in blocks])
    return np.where(power >= power.max() * 10 ** (-LOUD / 10), pitch, 0.0)


def _pitch(dips: np.ndarray) -> np.ndarray:
    """F0 in Hz [F] from normalised differences [F, LONGEST + 1], 0 where no dip is deep enough."""
    # step 4: the first minimum that is deep enough, not the deepest, which may be a multiple of the period
    inner = dips[:, SHORTEST:LONGEST]
    minima = (inner < DIP) & (inner <= dips[:, SHORTEST - 1 : LONGEST - 1]) & (inner < dips[:, SHORTEST + 1 :])
    minima &= inner <= NEAR + np.where(minima, inner, np.inf).min(axis=-1, keepdims=True)
    voiced, period = minima.any(axis=-1), SHORTEST + minima.argmax(axis=-1)
    # step 5: the vertex of the parabola through the minimum and its neighbours
    before, at, after = (np.take_along_axis(dips, period[:, None] + shift, axis=1)[:, 0] for shift in (-1, 0, 1))
    shift = np.divide(before - after, 2 * (before - 2 * at + after), out=np.zeros_like(at), where=voiced)
    return np.where(voiced, RATE / (period + shift), 0.0)


def _normalised_difference(frames: np.ndarray) -> np.ndarray:
    """Cumulative mean normalised difference d'(lag) [F, LONGEST + 1] of frames [F, WINDOW + LONGEST] (steps 2, 3)."""
    # d(lag) = sum over the window of (x_j - x_{j + lag})^2, from two energies and a correlation (by FFT)
    size = scipy.fft.next_fast_len(frames.shape[1], real=True)
    spectrum = scipy.fft.rfft(frames, size, axis=-1)
    window = scipy.fft.rfft(frames[:, :WINDOW], size, axis=-1)
    correlation = scipy.fft.irfft(spectrum * window.conj(), size, axis=-1)[:, : LONGEST + 1]
    energies = np.cumsum(np.square(frames), axis=-1)
    energies = np.pad(energies, ((0, 0), (1, 0)))
    energies = energies[:, WINDOW:] - energies[:, : LONGEST + 1]  # [F, LONGEST + 1] of the window moved by each lag
    difference = np.maximum(energies[:, :1] + energies - 2 * correlation, 0)
    total = np.cumsum(difference[:, 1:], axis=-1)
    lags = np.arange(1, LONGEST + 1)
    normalised = np.ones_like(difference)
    np.divide(difference[:, 1:] * lags, total, out=normalised[:, 1:], where=total > 0)
    return normalised
