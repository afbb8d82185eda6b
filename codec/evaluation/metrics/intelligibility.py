"""Intelligibility: STOI and extended STOI, by the package `pystoi`."""

import warnings

import numpy as np
import pystoi

from codec.evaluation.metrics.base import MetricError, audible_pair, finite

STOI_SHORTEST = 0.4  # seconds; one STOI segment of 30 frames, hop 12.8 ms


def stoi(reference, estimate, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al., IEEE TASLP 2011), in [-1, 1], higher is better.

    Correlation of envelopes in 15 third-octave bands at 10 kHz (resampled by pystoi). Needs 0.4 s of speech after
    removal of frames 40 dB below the loudest.
    """
    return _stoi(reference, estimate, sample_rate, extended=False)


def estoi(reference, estimate, sample_rate: int) -> float:
    """Extended STOI (Jensen and Taal, IEEE/ACM TASLP 2016), in [-1, 1], higher is better.

    Correlates spectro-temporal segments at 10 kHz: also sensitive to modulated noise, stricter than STOI. Needs 0.4 s
    of speech.
    """
    return _stoi(reference, estimate, sample_rate, extended=True)


def _stoi(reference, estimate, sample_rate: int, extended: bool) -> float:
    name = "ESTOI" if extended else "STOI"
    reference, estimate = audible_pair(name, reference, estimate, sample_rate, STOI_SHORTEST)
    # pystoi's ESTOI adds noise from NumPy's global generator: fixed so that runs repeat, then restored
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            # pystoi warns and returns 1e-5 where it has no answer
            warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
            value = pystoi.stoi(reference, estimate, int(sample_rate), extended=extended)
    except RuntimeWarning as warning:
        raise MetricError(
            f"{name} needs {STOI_SHORTEST} s of speech that is not silent; this clip has less."
        ) from warning
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return finite(name, value)
