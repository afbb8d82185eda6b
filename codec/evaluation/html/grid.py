"""A sweep on the page: what each level of each factor does, and every run."""

import math
from typing import Any

from codec.evaluation.html.base import Effect, Grid
from codec.evaluation.html.tables import decimals, higher_is_better, verdict
from codec.evaluation.html.tables import title as column_title
from codec.evaluation.metrics.intervals import Interval

ABOUT_RUN = ("name", "state", "reason", "command")
FEWEST_PAIRS = 3  # for a verdict: with two, one odd seed is half of what is known


def grid_view(grid: Grid) -> dict[str, Any]:
    """Tables of the main effects and of all runs for the template.

    An interval over pairs of runs decides from three pairs on; of a single pair there is none (NaN).
    """
    measured = [c for c in grid.runs.columns if c not in ABOUT_RUN and c not in grid.factors]
    metrics = [metric for metric in measured if any(effect.metric == metric for effect in grid.effects)]
    by_place = {(effect.factor, effect.level, effect.metric): effect for effect in grid.effects}
    factors = []
    for factor, levels in grid.factors.items():
        rows = [
            (level, [_cell(grid, by_place, factor, level, metric, level == levels[0]) for metric in metrics])
            for level in levels
        ]
        factors.append({"name": factor, "first": levels[0], "rows": rows})
    digits = {}
    for metric in measured:
        spread = [effect.difference for effect in grid.effects if effect.metric == metric]
        digits[metric] = max(2, decimals(spread))
    return {
        "metrics": [(metric, column_title(metric), digits[metric]) for metric in metrics],
        "factors": factors,
        "fewest": FEWEST_PAIRS,
        "run_metrics": [(metric, column_title(metric), digits[metric]) for metric in measured],
        "factor_names": list(grid.factors),
        "runs": grid.runs.to_dict(orient="records"),
        "states": [f"{count} {state}" for state, count in grid.runs["state"].value_counts(sort=False).items()],
    }


def _cell(
    grid: Grid, effects: dict[tuple[str, str, str], Effect], factor: str, level: str, metric: str, first: bool
) -> dict[str, Any]:
    effect = effects.get((factor, level, metric))
    if effect is None or first:
        chosen = grid.runs[grid.runs[factor].astype(str) == str(level)][metric]
        mean = effect.mean if effect else float(chosen.astype(float).mean())
        return {"mean": mean, "difference": None, "verdict": "", "small": False}
    interval: Interval = effect.difference
    small = math.isnan(interval.low) or math.isnan(interval.high)
    word = "" if small else verdict(interval, higher_is_better(metric), FEWEST_PAIRS)
    return {"mean": effect.mean, "difference": interval, "verdict": word, "small": small}
