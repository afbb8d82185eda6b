"""Perceptual quality: PESQ in the ITU's reference implementation, by the package `pesq`."""

import math

import numpy as np
from pesq import NoUtterancesError, PesqError, pesq

from codec.evaluation.metrics.base import SILENCE, MetricError, finite, resampled_pair

PESQ_PIECE = 20.0  # seconds; an utterance and its pause last 0.4 s or more, so PESQ finds 50 at most
PESQ_SHORTEST = 0.3  # seconds; the ITU code refuses less than 0.25 s


def pesq_wb(reference, estimate, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2, 2007), MOS-LQO in [1.0, 4.64], higher is better, at 16 kHz.

    Both signals are resampled. Clips over 20 s are scored in equal pieces of at most 20 s and averaged by length,
    without pieces in which the reference is silent.
    """
    return _pesq(reference, estimate, sample_rate, 16_000, "wb")


def pesq_nb(reference, estimate, sample_rate: int) -> float:
    """Narrow-band PESQ (ITU-T P.862, 2001, and P.862.1, 2003), MOS-LQO in [1.0, 4.55], higher is better, at 8 kHz.

    Both signals are resampled. The package also accepts 16 kHz, with another result (by 0.06 on its own example):
    published values without a rate compare only roughly. Long clips as in `pesq_wb`.
    """
    return _pesq(reference, estimate, sample_rate, 8_000, "nb")


def _pesq(reference, estimate, sample_rate: int, rate: int, mode: str) -> float:
    reference, estimate = resampled_pair("PESQ", reference, estimate, sample_rate, rate, PESQ_SHORTEST)
    pieces = math.ceil(len(reference) / (PESQ_PIECE * rate))
    scores, weights = [], []
    for r, e in zip(np.array_split(reference, pieces), np.array_split(estimate, pieces), strict=True):
        if np.ptp(r) < SILENCE:
            continue
        if np.ptp(e) < SILENCE:
            raise MetricError("The estimate is silent for a whole piece in which the reference is not.")
        try:
            scores.append(pesq(rate, r, e, mode))
        except NoUtterancesError:
            continue
        except PesqError as error:
            text = error.args[0] if error.args else error
            raise MetricError(f"PESQ: {text.decode() if isinstance(text, bytes) else text}.") from error
        weights.append(len(r))
    if not scores:
        raise MetricError("PESQ finds no utterance in this clip.")
    return finite("PESQ", np.average(scores, weights=weights))
