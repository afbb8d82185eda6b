"""Means, paired differences and rankings of systems on a page."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas

from codec.evaluation.html.base import SystemResult
from codec.evaluation.metrics.intervals import Interval, by_speaker, mean_interval, paired
from codec.evaluation.metrics.table import ALL_METRICS
from codec.evaluation.report import metric_title
from codec.evaluation.report_schema import CLIP_COLUMNS

ALL_PAIRS = 12  # systems; of more, each is compared with the first only
FEWEST = 6  # clips: five differences of one sign are no significant result at 5 % (sign test)
FEWEST_GROUPS = 3  # speakers, or seeds of runs, for a verdict: with two, an odd one is half of the data


class Scores:
    """Scores of all systems on the union of their clips.

    metrics: names, of any report, in the order of the metrics' table.
    clips: columns clip, speaker and seconds.
    values: ``[systems, metrics, clips]``, NaN where there is no score.
    """

    def __init__(self, results: Sequence[SystemResult]):
        found = dict.fromkeys(name for result in results for name in result.report.metrics)
        known = [name for name in ALL_METRICS if name in found]
        self.metrics = known + [name for name in found if name not in known]
        clips = pandas.concat([result.report.clips[list(CLIP_COLUMNS)] for result in results])
        self.clips = clips.drop_duplicates("clip").reset_index(drop=True)
        tables = [result.report.clips.set_index("clip").reindex(self.clips["clip"]) for result in results]
        self.values = np.stack([table.reindex(columns=self.metrics).to_numpy(dtype=np.float64).T for table in tables])
        self.groups, self.over = by_speaker(self.clips["speaker"])  # of the clips, and what intervals are over

    def mean(self, system: int, metric: int) -> Interval:
        """Mean over clips with its 95 % interval over speakers."""
        return mean_interval(self.values[system, metric], self.groups)

    def difference(self, system: int, against: int, metric: int) -> Interval:
        """Paired difference ``system`` minus ``against`` over the clips that both have, with its 95 % interval."""
        return paired(self.values[system, metric], self.values[against, metric], self.groups)

    def differences(self) -> dict[str, list[Interval]]:
        """``"i,j"`` -> i minus j per metric: for i < j, or beyond ``ALL_PAIRS`` systems for j = 0 alone."""
        count = len(self.values)
        pairs = combinations(range(count), 2) if count <= ALL_PAIRS else ((i, 0) for i in range(1, count))
        return {f"{i},{j}": [self.difference(i, j, m) for m in range(len(self.metrics))] for i, j in pairs}

    def best(self, metric: int, systems: Sequence[int]) -> int | None:
        """The system with the best mean, if its paired difference to the second excludes 0; else None."""
        higher = higher_is_better(self.metrics[metric])
        means = {system: self.mean(system, metric).mean for system in systems}
        ranked = sorted((s for s in systems if not math.isnan(means[s])), key=lambda s: means[s], reverse=bool(higher))
        if higher is None or len(ranked) < 2:
            return None
        first, second = ranked[:2]
        return first if verdict(self.difference(first, second, metric), higher) == "better" else None

    def worst_first(self, system: int, metric: int) -> list[int]:
        """Indices of the clips, the worst of this system first, those without a score last."""
        values = self.values[system, metric]
        order = values if higher_is_better(self.metrics[metric]) is not False else -values
        return list(np.argsort(order, kind="stable"))


def higher_is_better(metric: str) -> bool | None:
    """Direction of a metric; None if it is not in the metrics' table."""
    return ALL_METRICS[metric].higher_is_better if metric in ALL_METRICS else None


def title(metric: str) -> str:
    """Name, unit and direction of a metric, without a line break before the arrow."""
    return metric_title(metric).replace(" ↑", "\u00a0↑").replace(" ↓", "\u00a0↓")


def verdict(difference: Interval, higher: bool | None, fewest: int = FEWEST) -> str:
    """better or worse where the interval excludes 0 and rests on enough clips and speakers, else undecided."""
    few = difference.n < fewest or difference.groups < FEWEST_GROUPS
    if higher is None or few or not (difference.low > 0 or difference.high < 0):
        return "undecided"
    return "better" if (difference.low > 0) == higher else "worse"


def decimals(intervals: Sequence[Interval]) -> int:
    """Decimals (0 to 4) that show a digit of the half width of all but the narrowest quarter of the intervals."""
    widths = [(interval.high - interval.low) / 2 for interval in intervals]
    widths = [width for width in widths if math.isfinite(width) and width > 0]
    return int(np.clip(-math.floor(math.log10(np.quantile(widths, 0.25))), 0, 4)) if widths else 2


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """``1.64``, ``−0.3``, ``+0.3`` with ``sign``, and a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")
