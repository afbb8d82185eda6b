"""Results of the distillation study: reports, means and differences with intervals, and the rule of the verdict."""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas

sys.path.insert(0, str(Path(__file__).parents[2]))

from codec.evaluation.metrics.intervals import Interval, crossed, mean_interval
from codec.evaluation.report import Report

CONTENT = "span_per"
METRICS = {
    CONTENT: "phone error rate",
    "span_speaker": "speaker similarity",
    "span_mcd": "MCD (dB)",
    "span_f0_rmse": "F0 error (cents)",
    "frechet": "Frechet distance",
}
BOUNDS = {"recording": "recording", "ceiling": "copy_synthesis_ceiling", "floor": "interpolation_floor"}
NAME = re.compile(r"(?P<arm>[a-z]\d[a-z]?(x\d+)?)-(?P<condition>\w+)-(?P<seed>\d+)")


@dataclass(frozen=True)
class Judged:
    """Report of a flow model at one step of its training, or of a bound of its codec."""

    arm: str
    condition: str
    seed: int
    system: str  # "last", the number of a step, or one of BOUNDS
    report: Report

    def score(self, metric: str) -> float:
        """Mean over recordings; the Frechet distance is that of all recordings."""
        if metric == "frechet":
            return math.nan if self.report.facts["frechet"] is None else self.report.facts["frechet"]
        return float(self.report.clips[metric].mean())


def read(out: Path, kind: str = "judge") -> list[Judged]:
    """Reports of all finished evaluations; ``kind`` "silenced": the known part was encoded with silence in the span."""
    found, systems = [], {stem: system for system, stem in BOUNDS.items()}
    for folder in sorted((out / kind).glob("*")):
        name = NAME.fullmatch(folder.name)
        if not name or not (folder / "ended").is_file():
            continue
        for path in sorted(folder.glob("*.json")):
            system = systems.get(path.stem, path.stem)
            if system in BOUNDS or system == "last" or system.isdigit():
                found.append(Judged(name["arm"], name["condition"], int(name["seed"]), system, Report.read(path)))
    return found


def select(found: Sequence[Judged], **facts: str) -> list[Judged]:
    """Reports with these attributes."""
    return [one for one in found if all(getattr(one, name) == value for name, value in facts.items())]


def pooled(found: Sequence[Judged], metric: str) -> Interval:
    """Mean over seeds and recordings with its 95 % interval over speakers, of recordings with a value in every report.
    All reports must be of the same recordings and spans."""
    if metric == "frechet":
        values = np.array([one.score(metric) for one in found])
        return Interval(float(values.mean()), math.nan, math.nan, len(values))
    clips = [one.report.clips.set_index("clip") for one in found]
    together = pandas.concat([table[metric] for table in clips], axis=1).mean(axis=1, skipna=False)
    return mean_interval(together.reindex(clips[0].index), clips[0]["speaker"])


def difference(found: Sequence[Judged], others: Sequence[Judged]) -> Interval:
    """Mean difference of the phone error rate, ``found`` minus ``others``, paired by seed and recording, with a 95 %
    interval over seeds and speakers; none for a single seed. The rule of the verdict does not use it."""
    pairs = [(one, other) for one in found for other in others if one.seed == other.seed]
    if not pairs:
        return Interval(math.nan, math.nan, math.nan, 0)
    tables = [[side.report.clips.set_index("clip") for side in pair] for pair in pairs]
    apart = pandas.concat([one[CONTENT] - other[CONTENT] for one, other in tables], axis=1)
    return crossed(apart.T, None, tables[0][0]["speaker"].reindex(apart.index))


def codec_of(arm: str, plan: Mapping) -> str:
    """Arm whose codec an arm uses."""
    return plan["arms"][arm.partition("x")[0]].get("codec_of", arm.partition("x")[0])


def codecs(found: Sequence[Judged], plan: Mapping) -> list[Judged]:
    """One report per codec, seed, condition and system: several flow models may share the bounds of a codec."""
    own: dict[tuple, Judged] = {}
    for one in found:
        own.setdefault((codec_of(one.arm, plan), one.seed, one.condition, one.system), one)
    return list(own.values())


def spread(one: Sequence[float], other: Sequence[float]) -> float:
    """Seed spread of two arms: the larger of their ranges."""
    return max(max(one) - min(one), max(other) - min(other))


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the first has fewer errors than the second, by more than the seed spread."""
    return float(np.mean(other) - np.mean(one)) > spread(one, other)


def verdict(scores: Mapping[str, Sequence[float]], floor: float) -> str:
    """Verdict by the rule of docs/distillation.md for one condition, from scores by arm and seed (a0, a1, a6; a0x4
    where a1 is useful) and the floor's. Other arms with more steps are ignored."""
    a0, a1, a6 = (scores[arm] for arm in ("a0", "a1", "a6"))
    arms = {arm: values for arm, values in scores.items() if "x" not in arm}
    best = min(arms.values(), key=np.mean)
    if floor - float(np.mean(best)) <= max(best) - min(best):
        return "not decided at this scale: the best arm is not clearly below the floor"
    if not any(beats(one, other) for one in arms.values() for other in arms.values()):
        return "not decided at this scale: all arms lie within the seed spread of each other"
    if not (beats(a1, a0) and beats(a1, a6)):
        why = "a1 does not beat a0" if not beats(a1, a0) else "the placebo matches a1"
        return f"not useful ({why}), hence not necessary"
    if len(scores.get("a0x4", ())) < len(a0):
        return "useful; whether it is necessary, a0 with four times the steps must show, whose seeds are missing"
    if float(np.mean(scores["a0x4"])) > float(np.mean(a1)):
        return "useful, and necessary: a0 with four times the steps does not reach a1"
    return "useful, not necessary: a0 with four times the steps reaches a1"
