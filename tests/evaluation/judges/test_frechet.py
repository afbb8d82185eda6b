"""The Frechet distance against its closed forms."""

import numpy as np
import pytest
import scipy.linalg

from codec.evaluation.judges.frechet import frechet_distance
from codec.evaluation.metrics.base import MetricError


def with_moments(mean, covariance, n: int = 200, seed: int = 0) -> np.ndarray:
    """``[n, dim]`` whose sample mean and covariance are exactly these."""
    x = np.random.default_rng(seed).standard_normal((n, len(mean)))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(x, rowvar=False)))).T
    values, vectors = np.linalg.eigh(covariance)
    return x @ (vectors * np.sqrt(values)).T + mean


def test_any_gaussians_agree_with_the_root_of_a_matrix():
    rng = np.random.default_rng(1)
    factors, means = rng.standard_normal((2, 5, 5)), rng.standard_normal((2, 5))
    covariances = factors @ factors.transpose(0, 2, 1)
    clouds = [with_moments(means[i], covariances[i], seed=i) for i in range(2)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(*clouds) == pytest.approx(expected, rel=1e-8)


def test_equal_and_singular_sets_have_a_distance():
    cloud = with_moments(np.zeros(4), np.eye(4))
    flat = cloud * [1, 1, 0, 0]
    assert frechet_distance(cloud, cloud) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(flat, flat) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(flat, cloud) == pytest.approx(2)
    assert frechet_distance(cloud[:, :1], cloud[:, :1] + 3) == pytest.approx(9)


def test_too_few_or_broken_features_have_no_distance():
    cloud = np.random.default_rng(0).standard_normal((20, 8))
    with pytest.raises(MetricError, match="8 of 8"):
        frechet_distance(cloud, cloud[:8])
    with pytest.raises(MetricError, match="finite"):
        frechet_distance(cloud, cloud * np.nan)
    with pytest.raises(ValueError, match="one dim"):
        frechet_distance(cloud, cloud[:, :7])
