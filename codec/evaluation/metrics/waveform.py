"""Metrics of the waveform: SI-SDR and loudness."""

import numpy as np
import pyloudnorm

from codec.evaluation.metrics.base import MetricError, audible_pair, finite

LOUDNESS_BLOCK = 0.4  # seconds, the gating block of BS.1770


def si_sdr(reference, estimate, sample_rate: int) -> float:
    """Scale-invariant SDR (Le Roux et al., ICASSP 2019, arXiv 1811.02508), in dB, higher is better.

    10 log10(|a r|^2 / |e - a r|^2) with a = <e, r> / <r, r>, of zero-mean signals at the given rate; limited to +-156
    dB (float64 precision), so that identity is a number. It compares waveforms: a generative codec that sounds right
    with other phases scores near or below 0 dB.
    """
    reference, estimate = audible_pair("SI-SDR", reference, estimate, sample_rate)
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    distortion = estimate - target
    floor = np.finfo(np.float64).eps * (estimate @ estimate)
    return float(10 * np.log10((target @ target + floor) / (distortion @ distortion + floor)))


def loudness_difference(reference, estimate, sample_rate: int) -> float:
    """Absolute difference of integrated loudness (ITU-R BS.1770-4, 2015), in LU (= dB) in [0, inf), lower is better.

    By pyloudnorm (Steinmetz and Reiss, AES 2021), at the given rate: K-weighted power, averaged over blocks of 0.4 s
    above -70 LUFS and at most 10 LU below the mean. A gain of g dB costs |g|; phase and another spectrum of equal
    loudness cost nothing, a delay next to nothing. Needs 0.4 s and a block above -70 LUFS.
    """
    reference, estimate = audible_pair("Loudness", reference, estimate, sample_rate, LOUDNESS_BLOCK)
    meter = pyloudnorm.Meter(sample_rate, block_size=LOUDNESS_BLOCK)
    loudness = []
    for role, signal in (("reference", reference), ("estimate", estimate)):
        loudness.append(meter.integrated_loudness(signal))
        if not np.isfinite(loudness[-1]):
            raise MetricError(f"The {role} is quieter than -70 LUFS, the gate of BS.1770.")
    return finite("Loudness", abs(loudness[1] - loudness[0]))
