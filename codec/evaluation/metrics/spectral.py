"""Frame-wise distances of magnitude spectra: mel bands, STFT bins, mel-cepstra."""

import functools
import math

import numpy as np
import scipy.fft

from codec.evaluation.metrics.base import MetricError, finite, finite_pair, resampled_pair

MEL_SCALES = tuple((2**k, 5 * 2 ** (k - 5)) for k in range(5, 12))  # (32 samples, 5 bands) ... (2048, 320)
STFT_WINDOWS = (2048, 512)  # samples
FLOOR = 1e-5  # smallest magnitude, of DAC; a little over the noise of 16 bits
MCD_RATE, MCD_WINDOW, MCD_BANDS, MCD_ORDER = 16_000, 512, 40, 24  # Hz; samples (32 ms); mel bands; cepstra 1 to 24
MCD_SPEECH = 40.0  # dB under the loudest frame at most, as in STOI
MCD_SHORTEST = 0.1  # seconds


def mel_distance(reference, estimate, sample_rate: int) -> float:
    """DAC's multi-scale log-mel distance (Kumar et al., NeurIPS 2023, arXiv 2306.06546), in [0, inf), lower is better.

    Its reconstruction loss, in log10 units: sum over 7 windows (32 to 2048 samples, hop a quarter; 5 to 320 Slaney mel
    bands up to half the rate; frames centred with reflection) of the mean L1 between log10 mel magnitudes clamped at
    1e-5. Computed at the given rate: compare equal rates only. Silence has a score.
    """
    reference, estimate = finite_pair(reference, estimate)
    longest = MEL_SCALES[-1][0]
    if len(reference) < longest:
        raise MetricError(f"The mel distance needs {longest} samples; this clip has {len(reference)}.")
    distance = 0.0
    for window, n_mels in MEL_SCALES:
        filters = mel_filters(sample_rate, window, n_mels)
        distance += float(np.mean(np.abs(log_mel(reference, filters) - log_mel(estimate, filters))))
    return distance


def stft_distance(reference, estimate, sample_rate: int) -> float:
    """DAC's multi-scale STFT distance (Kumar et al., NeurIPS 2023, arXiv 2306.06546), in [0, inf), lower is better.

    After DDSP (Engel et al., ICLR 2020): sum over 2 Hann windows (2048 and 512 samples; hop a quarter; frames centred
    with reflection) of the mean L1 between magnitudes plus the mean L1 between log10 powers of magnitudes clamped at
    1e-5. The first part is linear in level: loud clips have larger distances. Computed at the given rate: compare equal
    rates only. Silence has a score.
    """
    reference, estimate = finite_pair(reference, estimate)
    longest = max(STFT_WINDOWS)
    if len(reference) < longest:
        raise MetricError(f"The STFT distance needs {longest} samples; this clip has {len(reference)}.")
    distance = 0.0
    for window in STFT_WINDOWS:
        r, e = magnitudes(reference, window), magnitudes(estimate, window)
        distance += float(np.mean(np.abs(r - e)))
        distance += 2 * float(np.mean(np.abs(np.log10(np.maximum(r, FLOOR)) - np.log10(np.maximum(e, FLOOR)))))
    return distance


def mel_cepstral_distortion(reference, estimate, sample_rate: int) -> float:
    """Mel-cepstral distortion (Kubichek, IEEE PACRIM 1993), in dB in [0, inf), lower is better, at 16 kHz.

    Mean over frames of 10 sqrt(2) / ln 10 * sqrt(sum of (c_k - c'_k)^2, k = 1 ... 24). Cepstra are the DCT-II, times 2
    / 40, of the natural log of 40 Slaney mel magnitudes (32 ms Hann windows, hop 8 ms, clamped at 1e-5) of the
    resampled signals: the distortion is the RMS over the mel axis of the difference of smoothed spectra in dB, less its
    mean (no c_0, so a gain costs nothing). No time warping; frames are those in which the reference is within 40 dB of
    its loudest. Papers differ in order, bands and warping: compare within one definition only. Needs 0.1 s.
    """
    name = "The mel-cepstral distortion"
    reference, estimate = resampled_pair(name, reference, estimate, sample_rate, MCD_RATE, MCD_SHORTEST)
    filters = mel_filters(MCD_RATE, MCD_WINDOW, MCD_BANDS)
    power = np.sum(np.square(magnitudes(reference, MCD_WINDOW)), axis=-1)  # [F]
    speech = power >= power.max() * 10 ** (-MCD_SPEECH / 10)
    difference = math.log(10) * (log_mel(reference, filters) - log_mel(estimate, filters))[speech]
    cepstra = scipy.fft.dct(difference, type=2, axis=-1)[:, 1 : MCD_ORDER + 1] / MCD_BANDS  # SciPy's has the factor 2
    distortion = 10 * math.sqrt(2) / math.log(10) * np.sqrt(np.sum(np.square(cepstra), axis=-1))
    return finite(name, np.mean(distortion))


@functools.lru_cache(maxsize=64)
def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Slaney's triangular mel bands of equal area, 0 Hz to half the rate: [n_mels, n_fft // 2 + 1] float32."""
    # equal to librosa.filters.mel, which DAC uses: librosa takes seconds to import
    top = sample_rate / 2
    # Slaney's scale: linear (3 mel per 200 Hz) to 1 kHz, then 27 mel per factor 6.4
    top_mel = top * 3 / 200 if top < 1000 else 15 + 27 * math.log(top / 1000) / math.log(6.4)
    mels = np.linspace(0, top_mel, n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))  # Hz
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.linspace(0, top, n_fft // 2 + 1)
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(0, triangles) * 2 / (high - low)).astype(np.float32)


def magnitudes(wav: np.ndarray, window: int) -> np.ndarray:
    """Magnitudes [F, window // 2 + 1] of wav [T]: periodic Hann window, hop a quarter, centred with reflection."""
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    padded = np.pad(wav.astype(np.float32), window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]  # [F, window]
    return np.abs(scipy.fft.rfft(frames * hann, axis=-1))


def log_mel(wav: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Log10 mel magnitudes [F, n_mels] of wav [T]."""
    return np.log10(np.maximum(magnitudes(wav, 2 * (filters.shape[1] - 1)) @ filters.T, FLOOR))
