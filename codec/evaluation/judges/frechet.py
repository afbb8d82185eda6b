"""Frechet distance between two sets of features (Dowson and Landau 1982; for sound: arXiv 1812.08466)."""

import numpy as np

from codec.evaluation.metrics.base import MetricError


def frechet_distance(one, other) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets ``[n, dim]``, in [0, inf), lower is better.

    |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)), with means m and covariances C, which may be singular. Biased
    upwards, by about dim^2 / n of a variance: compare only distances of equally many vectors, beside that of two halves
    of one set. Vectors of one recording are correlated: the effective n is smaller. Raises MetricError if a set has no
    more vectors than dimensions or is not finite, ValueError if the widths differ.
    """
    one, other = (np.asarray(features, dtype=np.float64) for features in (one, other))
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise ValueError(f"features must be [n, dim] with one dim; they are {list(one.shape)} and {list(other.shape)}")
    for features in (one, other):
        n, dim = features.shape
        if n <= dim:
            raise MetricError(f"The Frechet distance needs more vectors than dimensions: {n} of {dim}.")
        if not np.isfinite(features).all():
            raise MetricError("The Frechet distance needs finite features.")
    mean = one.mean(axis=0) - other.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (one, other))
    # trace of (C1 C2)^(1/2): roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), symmetric, hence never complex
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # below 0 by rounding only
    product = np.linalg.eigvalsh(root @ second @ root)
    traces = np.trace(first) + np.trace(second)
    return max(0.0, float(mean @ mean + traces - 2 * np.sqrt(np.maximum(product, 0)).sum()))
