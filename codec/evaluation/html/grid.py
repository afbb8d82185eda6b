"""A sweep on the page: the main effect of each level of each factor, and all runs."""

import math
from typing import Any

from codec.evaluation.html.base import Grid
from codec.evaluation.html.tables import FEWEST_GROUPS, decimals, higher_is_better, verdict
from codec.evaluation.html.tables import title as column_title

RUN_COLUMNS = ("name", "state", "reason", "command")


def grid_view(grid: Grid) -> dict[str, Any]:
    """Tables of main effects and of all runs for the template; a verdict needs three seeds, or pairs of one seed."""
    metrics = [column for column in grid.runs.columns if column not in RUN_COLUMNS and column not in grid.factors]
    digits = {}
    for metric in metrics:
        digits[metric] = max(2, decimals([effect.difference for effect in grid.effects if effect.metric == metric]))
    columns = [(metric, column_title(metric), digits[metric]) for metric in metrics]
    with_effects = {effect.metric for effect in grid.effects}
    factors = []
    for factor, levels in grid.factors.items():
        cells = {level: [_cell(grid, factor, level, m) for m in metrics if m in with_effects] for level in levels}
        factors.append({"name": factor, "first": levels[0], "rows": list(cells.items())})
    return {
        "metrics": [column for column in columns if column[0] in with_effects],
        "factors": factors,
        "fewest": FEWEST_GROUPS,
        "run_metrics": columns,
        "factor_names": list(grid.factors),
        "runs": grid.runs.to_dict(orient="records"),
        "states": [f"{count} {state}" for state, count in grid.runs["state"].value_counts(sort=False).items()],
    }


def _cell(grid: Grid, factor: str, level: str, metric: str) -> dict[str, Any]:
    found = [e for e in grid.effects if (e.factor, e.level, e.metric) == (factor, level, metric)]
    if not found:  # the first level
        runs = grid.runs[grid.runs[factor].astype(str) == str(level)]
        return {"mean": float(runs[metric].astype(float).mean()), "difference": None, "verdict": "", "small": False}
    interval = found[0].difference
    small = math.isnan(interval.low) or math.isnan(interval.high)
    word = "" if small else verdict(interval, higher_is_better(metric), FEWEST_GROUPS)
    return {"mean": found[0].mean, "difference": interval, "verdict": word, "small": small}
