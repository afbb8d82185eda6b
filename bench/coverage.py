"""Coverage of 95 % intervals of means over clips of several speakers, by simulation: a Markdown table.

    python bench/coverage.py                     # about seven minutes of one core
    python bench/coverage.py --trials 3000 --correlations 0.8 --speakers 5 12 30

A score is a speaker's part plus a clip's, of total variance 1 and mean 0; the correlation is the speakers' share of the
variance. A paired difference is a score of this kind, too: its correlation is that of the differences. The last table
is of `crossed`, for differences between runs: seeds, speakers, and what is particular to a seed and a speaker.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import optimize, stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec.evaluation.metrics.intervals import crossed, mean_interval

SPEAKERS, CORRELATIONS, SEEDS = (5, 8, 12, 20, 30), (0.3, 0.8, 0.95), (2, 3, 5)
RESAMPLES = 500
Ends = tuple[float, float]
NOISES: dict[str, Callable] = {  # of mean 0 and variance 1; with their skewness
    "normal, 0": lambda generator, size: generator.standard_normal(size),
    "gamma, 1": lambda generator, size: generator.gamma(4, 0.5, size) - 2,
    "exponential, 2": lambda generator, size: generator.exponential(1, size) - 1,
}
SIZES: dict[str, Callable[[int], np.ndarray]] = {  # clips of each speaker
    "6 each": lambda count: np.full(count, 6),
    "4 to 8": lambda count: 4 + np.arange(count) % 5,
    "2, one has half": lambda count: np.append(np.full(count - 1, 2), 2 * (count - 1)),
}


def scores(generator: np.random.Generator, sizes: np.ndarray, correlation: float, noise: str) -> tuple:
    """Scores [clips] of mean 0, and the speaker [clips] of each."""
    speakers, draw = np.repeat(np.arange(len(sizes)), sizes), NOISES[noise]
    own, common = draw(generator, len(speakers)), draw(generator, len(sizes))[speakers]
    return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own, speakers


def clips_t(values: np.ndarray, speakers: np.ndarray) -> Ends:
    return mean_interval(values)[1:3]


def clips_bootstrap(values: np.ndarray, speakers: np.ndarray) -> Ends:
    """What reports had before: clips count as independent."""
    return speakers_bootstrap(values, np.arange(len(values)))


def speakers_bootstrap(values: np.ndarray, speakers: np.ndarray) -> Ends:
    """Percentile bootstrap of whole speakers."""
    sums, sizes = np.bincount(speakers, values), np.bincount(speakers)
    drawn = np.random.default_rng(0).integers(len(sizes), size=(RESAMPLES, len(sizes)))
    return tuple(np.percentile(sums[drawn].sum(1) / sizes[drawn].sum(1), [2.5, 97.5]))


def means_t(values: np.ndarray, speakers: np.ndarray) -> Ends:
    """Student's t of the speakers' means, which weighs all speakers alike."""
    return mean_interval(np.bincount(speakers, values) / np.bincount(speakers))[1:3]


def mixed_model(values: np.ndarray, speakers: np.ndarray) -> Ends:
    """Random intercepts by REML, t with speakers - 1 degrees of freedom."""
    sizes = np.bincount(speakers)
    means = np.bincount(speakers, values) / sizes
    within = np.square(values - means[speakers]).sum()
    count, groups = len(values), len(sizes)

    def fit(share: float) -> tuple[float, float, float]:
        """Deviance, mean, and its variance at a ratio of the variances of speakers and clips."""
        weight = sizes / (1 + sizes * share)
        mean = (weight * means).sum() / weight.sum()
        variance = (within + (weight * np.square(means - mean)).sum()) / (count - 1)
        deviance = (count - 1) * np.log(variance) + np.log1p(sizes * share).sum() + np.log(weight.sum())
        return deviance, mean, variance / weight.sum()

    best = optimize.minimize_scalar(lambda x: fit(np.exp(x))[0], bounds=(-9, 9), method="bounded").x
    _, mean, variance = fit(np.exp(best))
    half = stats.t.ppf(0.975, groups - 1) * np.sqrt(variance)
    return mean - half, mean + half


def robust_t(values: np.ndarray, speakers: np.ndarray) -> Ends:
    """That of this project: CR2 and Bell and McCaffrey's degrees of freedom."""
    return mean_interval(values, speakers)[1:3]


METHODS = {
    "clips, bootstrap": clips_bootstrap,
    "clips, t": clips_t,
    "speakers, bootstrap": speakers_bootstrap,
    "speakers' means, t": means_t,
    "mixed model": mixed_model,
    "speakers, CR2 and t": robust_t,
}


def coverage(method: Callable, speakers: int, correlation: float, sizes: str, noise: str, trials: int = 1000) -> float:
    """Share of simulated intervals that contain the true mean."""
    generator = np.random.default_rng(0)  # the same scores for every method
    found = (method(*scores(generator, SIZES[sizes](speakers), correlation, noise)) for _ in range(trials))
    return float(np.mean([low <= 0 <= high for low, high in found]))


def crossed_coverage(seeds: int, speakers: int, shares: tuple[float, float, float], trials: int = 1000) -> float:
    """The same of `crossed`, for 6 clips of each speaker; `shares` of the variance: seeds, speakers, cells."""
    generator, covered = np.random.default_rng(0), 0
    names, draw = np.repeat(np.arange(speakers), 6), generator.standard_normal
    for _ in range(trials):
        parts = draw((seeds, 1)), draw(speakers)[names], draw((seeds, speakers))[:, names], draw((seeds, len(names)))
        table = sum(np.sqrt(share) * part for share, part in zip((*shares, 1 - sum(shares)), parts, strict=True))
        found = crossed(table, None, names)
        covered += found.low <= 0 <= found.high
    return covered / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--speakers", type=int, nargs="+", default=SPEAKERS)
    parser.add_argument("--correlations", type=float, nargs="+", default=CORRELATIONS)
    options = parser.parse_args()
    print("| noise, skewness | clips | correlation | speakers | " + " | ".join(METHODS) + " |")
    print("|---" * (4 + len(METHODS)) + "|")
    for noise in NOISES:
        for sizes in SIZES:
            for correlation in options.correlations:
                for count in options.speakers:
                    case = count, correlation, sizes, noise, options.trials
                    cells = [f"{coverage(method, *case):.3f}" for method in METHODS.values()]
                    print("|", " | ".join([noise, sizes, str(correlation), str(count), *cells]), "|", flush=True)
    print("\n| seeds | speakers | variance of seeds, speakers, cells | `crossed` |\n|---|---|---|---|")
    for shares in ((0.1, 0.1, 0.1), (0.4, 0.1, 0.1), (0.1, 0.4, 0.1), (0.02, 0.02, 0.4)):
        for seeds in SEEDS:
            for count in (6, 12):
                found = crossed_coverage(seeds, count, shares, options.trials)
                print(f"| {seeds} | {count} | {shares} | {found:.3f} |", flush=True)


if __name__ == "__main__":
    main()
