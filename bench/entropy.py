"""Bias and error in bits of estimators of the entropy of 2,048 codes from few frames, by simulation: a Markdown table.

python bench/entropy.py          # a few seconds
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from codec.quantizers.base import entropy

CODES, FRAMES, TRIALS = 2048, (500, 1000, 2500, 5000, 20_000), 40
SHARES = {  # of the codes, up to a factor
    "uniform": np.ones(CODES),
    "Zipf": 1 / np.arange(1, CODES + 1),
    "half unused": np.repeat([1.0, 0.0], CODES // 2),
}


def plug_in(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def miller_madow(counts: np.ndarray) -> float:
    return plug_in(counts) + ((counts > 0).sum() - 1) / (2 * counts.sum() * np.log(2))


def chao_shen(counts: np.ndarray) -> float:
    """Environmental and Ecological Statistics 10(4), 2003."""
    total = counts.sum()
    p = (1 - min((counts == 1).sum(), total - 1) / total) * counts[counts > 0] / total
    return float(-(p * np.log2(p) / (1 - (1 - p) ** total)).sum())


def chao_wang_jost(counts: np.ndarray) -> float:
    return float(entropy(torch.from_numpy(counts)[None].float()))


ESTIMATORS = {
    "plug-in": plug_in,
    "Miller and Madow": miller_madow,
    "Chao and Shen": chao_shen,
    "Chao, Wang and Jost": chao_wang_jost,
}


def errors(estimator, shares: np.ndarray, frames: int) -> np.ndarray:
    """Errors in bits [trials] of an estimator, at most log2 of the number of codes."""
    generator, p = np.random.default_rng(0), shares / shares.sum()
    found = [estimator(generator.multinomial(frames, p)) for _ in range(TRIALS)]
    return np.minimum(found, np.log2(len(p))) - plug_in(p)


def main() -> None:
    print("| codes | frames | " + " | ".join(f"{name}: bias (RMSE)" for name in ESTIMATORS) + " |")
    print("|---" * (2 + len(ESTIMATORS)) + "|")
    for name, shares in SHARES.items():
        for frames in FRAMES:
            found = [errors(estimator, shares, frames) for estimator in ESTIMATORS.values()]
            cells = [f"{one.mean():+.3f} ({np.sqrt(np.square(one).mean()):.3f})" for one in found]
            print("|", " | ".join([name, str(frames), *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
