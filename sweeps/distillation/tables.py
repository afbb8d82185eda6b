"""What the distillation study has found so far: ``python sweeps/distillation/tables.py OUT [--to FOLDER]``.

Reads the reports that run.py and cost.py left in OUT -> tables.md, scores.csv (of every flow model and bound) and two
plots (SVG) in FOLDER (default: OUT). Arms without all of their seeds are in the tables with what there is, and have no
verdict.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas
import yaml

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from codec.evaluation.metrics.intervals import Interval, bootstrap  # noqa: E402
from codec.evaluation.report import Report  # noqa: E402

CONTENT = "span_per"
METRICS = {
    CONTENT: "phone error rate",
    "span_speaker": "speaker similarity",
    "span_mcd": "MCD (dB)",
    "span_f0_error": "F0 error (cents)",
    "frechet": "Frechet distance",
}
DIGITS = {"span_mcd": 2, "span_f0_error": 0, "frechet": 2, "pesq_wb": 2, "mel_distance": 2}  # of all others 3
BOUNDS = {"recording": "recording", "ceiling": "copy_synthesis_ceiling", "floor": "interpolation_floor"}
FEW = 20  # recordings: a mean over fewer is not shown; of many spans no F0 can be measured
RESAMPLES = 2000
NAME = re.compile(r"(?P<arm>[a-z]\d[a-z]?(x\d+)?)-(?P<condition>\w+)-(?P<seed>\d+)")


@dataclass(frozen=True)
class Judged:
    """One flow model at one step, or a bound of its codec."""

    arm: str
    condition: str
    seed: int
    system: str  # "last", the number of a step, or one of BOUNDS
    report: Report

    def score(self, metric: str) -> float:
        """The mean over recordings."""
        if metric == "frechet":
            return math.nan if self.report.facts["frechet"] is None else self.report.facts["frechet"]
        return float(self.report.clips[metric].mean())


def read(out: Path, kind: str = "judge") -> list[Judged]:
    """All that has been judged; ``kind`` "silenced": with what is known encoded without the span."""
    found = []
    for folder in sorted((out / kind).glob("*")):
        name = NAME.fullmatch(folder.name)
        if not name or not (folder / "ended").is_file():
            continue
        about = name["arm"], name["condition"], int(name["seed"])
        stems = {stem: system for system, stem in BOUNDS.items()}
        for path in sorted(folder.glob("*.json")):
            system = stems.get(path.stem, path.stem)
            if system in BOUNDS or system == "last" or system.isdigit():
                found.append(Judged(*about, system, Report.read(path)))
    return found


def pooled(found: Sequence[Judged], metric: str) -> Interval:
    """Mean over seeds and recordings; 95 % interval over speakers. All reports are of the same recordings and spans;
    those are counted that have a value in each."""
    if metric == "frechet":
        values = np.array([one.score(metric) for one in found])
        return Interval(float(values.mean()), math.nan, math.nan, len(values))
    clips = [one.report.clips.set_index("clip") for one in found]
    together = pandas.concat([table[metric] for table in clips], axis=1).mean(axis=1, skipna=False)
    return bootstrap(together.reindex(clips[0].index), groups=clips[0]["speaker"])


def difference(found: Sequence[Judged], others: Sequence[Judged], metric: str = CONTENT) -> Interval:
    """``found`` minus ``others``, paired by seed and recording: mean, 95 % interval over seeds and speakers, both drawn
    with replacement and crossed (Owen 2007, doi 10.1214/07-AOAS122), none of a single seed. Not what the rule asks: it
    says how much there could be."""
    pairs = [(one, other) for one in found for other in others if one.seed == other.seed]
    if not pairs:
        return Interval(math.nan, math.nan, math.nan, 0)
    tables = [[side.report.clips.set_index("clip") for side in pair] for pair in pairs]
    apart = pandas.concat([one[metric] - other[metric] for one, other in tables], axis=1)
    by_speaker = apart.groupby(tables[0][0]["speaker"])
    sums, counts = by_speaker.sum().to_numpy(), by_speaker.count().to_numpy()  # [speakers, seeds]
    mean, count = float(sums.sum() / counts.sum()), int(counts.sum())
    if len(pairs) < 2:
        return Interval(mean, math.nan, math.nan, count)
    generator = np.random.default_rng(0)
    who, which = (generator.integers(count, size=(RESAMPLES, count)) for count in sums.shape)
    drawn = who[:, :, None], which[:, None, :]
    ends = np.percentile(sums[drawn].sum((1, 2)) / counts[drawn].sum((1, 2)), [2.5, 97.5])
    return Interval(mean, *map(float, ends), count)


def codecs(found: Sequence[Judged], plan: Mapping) -> list[Judged]:
    """Of each codec, seed, condition and system one: a bound is that of a codec, and some arms have that of another, or
    several models."""
    own: dict[tuple, Judged] = {}
    for one in found:
        arm = one.arm.partition("x")[0]
        own.setdefault((plan["arms"][arm].get("codec_of", arm), one.seed, one.condition, one.system), one)
    return list(own.values())


def spread(one: Sequence[float], other: Sequence[float]) -> float:
    """The seed spread of two arms: the larger of their ranges."""
    return max(max(one) - min(one), max(other) - min(other))


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the first has fewer errors than the second, by more than the seed spread."""
    return float(np.mean(other) - np.mean(one)) > spread(one, other)


def verdict(scores: Mapping[str, Sequence[float]], floor: float) -> str:
    """The rule of docs/distillation.md for one condition: scores of a0, a1 and a6 by seed, of a0x4 where a1 is useful,
    and the floor's. Other models with more steps have no part in it."""
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


def tables(found: Sequence[Judged], out: Path, plan: Mapping) -> str:
    """Everything as Markdown."""
    arms = [*plan["arms"], *(f"{arm}x{times}" for arm, times in plan["patience"].items())]
    lines = []
    for condition in sorted({one.condition for one in found}):
        mine = [one for one in found if one.condition == condition]
        lines += [f"### Filled-in spans, {condition.replace('_', ' ')}", ""]
        lines.append(_head(["arm", "seeds", METRICS[CONTENT], "minus A0's", *list(METRICS.values())[1:]]))
        content = {}
        for arm in sorted({one.arm for one in mine}, key=arms.index):
            last = [one for one in mine if (one.arm, one.system) == (arm, "last")]
            content[arm] = [one.score(CONTENT) for one in last]
            cells = [_cell(last, metric) for metric in METRICS]
            plain = [one for one in mine if (one.arm, one.system) == (_plain(arm), "last")]
            cells.insert(1, "-" if arm == "a0" else _signed(difference(last, plain)))
            lines.append(_row([_name(arm), str(len(last)), *cells]))
        for bound in BOUNDS:
            own = [one for one in codecs(mine, plan) if one.system == bound]
            cells = [_cell(own, metric) for metric in METRICS]
            cells.insert(1, "-")
            lines.append(_row([bound if bound == "recording" else f"{bound}, all codecs", str(len(own)), *cells]))
        floor = float(np.mean([one.score(CONTENT) for one in codecs(mine, plan) if one.system == "floor"]))
        whole = {arm: scores for arm, scores in content.items() if len(scores) >= len(plan["seeds"])}
        answer = verdict(whole, floor) if {"a0", "a1", "a6"} <= set(whole) else "seeds are missing"
        if left_out := [arm.upper() for arm in content if arm not in whole and "x" not in arm]:
            answer += f"; without {', '.join(left_out)}, whose seeds are missing"
        lines += ["", f"By the rule: {answer}. {_ahead(whole)}".rstrip(), ""]
        others = [arm for arm in content if "x" in arm and _plain(arm) != "a0"]
        lines += ["Arms with more steps are compared with A0 with as many.", ""] if others else []
    lines += _curves(found, plan)
    return "\n".join([*lines, *_silenced(found, out, arms), *_bounds(found, plan), *_codecs(out, plan)])


def _plain(arm: str) -> str:
    """What an arm is compared with: a0, with as many steps; a0 with more steps with a0."""
    return "a0" if arm.startswith("a0") else arm.replace(arm.partition("x")[0], "a0")


def _name(arm: str) -> str:
    """As tables have it: A0, A0 x 4."""
    return arm.upper().replace("X", " x ")


def _curves(found: Sequence[Judged], plan: Mapping) -> list[str]:
    """How it went at the kept steps before the last."""
    kept: dict[tuple, list[Judged]] = {}
    for one in found:
        arm, _, times = one.arm.partition("x")
        if one.system.isdigit() and arm in plan["curves"]:
            kept.setdefault((one.condition, times, int(one.system), arm), []).append(one)
    head = ["condition", "arm", "step", "seeds", METRICS[CONTENT], "minus A0's with as many steps"]
    lines = ["### On the way", "", _head(head)]
    for (condition, times, step, arm), own in sorted(kept.items()):
        less = "-" if arm == "a0" else _signed(difference(own, kept.get((condition, times, step, "a0"), [])))
        about = condition.replace("_", " "), _name(own[0].arm), str(step), str(len(own))
        lines.append(_row([*about, _cell(own, CONTENT), less]))
    return [*lines, ""] if kept else []


def _silenced(found: Sequence[Judged], out: Path, arms: Sequence[str]) -> list[str]:
    """What the traces of a span in its neighbours' latents are worth."""
    quiet = read(out, "silenced")
    if not quiet:
        return []
    lines = ["### Phone error rate where what is known was encoded with silence in the span", ""]
    lines.append(_head(["condition", "arm", "seeds", "silenced", "minus A0's", "minus that with traces"]))
    for condition in sorted({one.condition for one in quiet}):
        mine = [one for one in quiet if (one.condition, one.system) == (condition, "last")]
        for arm in sorted({one.arm for one in mine}, key=arms.index):
            own, plain = ([one for one in mine if one.arm == name] for name in (arm, _plain(arm)))
            usual = [one for one in found if (one.condition, one.system, one.arm) == (condition, "last", arm)]
            cells = [_cell(own, CONTENT)]
            cells += ["-" if arm == "a0" else _signed(difference(own, plain)), _signed(difference(own, usual))]
            lines.append(_row([condition.replace("_", " "), _name(arm), str(len(own)), *cells]))
    return [*lines, ""]


def _bounds(found: Sequence[Judged], plan: Mapping) -> list[str]:
    """Ceiling and floor of each codec: what distillation costs. On the recordings of one condition, since those of
    others are not quite the same."""
    condition = min(one.condition for one in found)
    asked = [("ceiling", CONTENT), ("floor", CONTENT)]
    asked += [("ceiling", metric) for metric in ("span_speaker", "span_mcd", "span_f0_error")]
    lines = [f"### Ceiling and floor of each codec, recordings of {condition.replace('_', ' ')}", ""]
    lines.append(_head(["arm", "seeds", *(f"{bound}: {METRICS[metric]}" for bound, metric in asked)]))
    mine: dict[str, list[Judged]] = {}
    for one in codecs([one for one in found if one.condition == condition], plan):
        arm = one.arm.partition("x")[0]
        mine.setdefault(plan["arms"][arm].get("codec_of", arm), []).append(one)
    for arm in sorted(mine, key=list(plan["arms"]).index):
        own = {bound: [one for one in mine[arm] if one.system == bound] for bound in BOUNDS}
        cells = [_cell(own[b], metric) for b, metric in asked]
        lines.append(_row([arm.upper(), str(len(own["ceiling"])), *cells]))
    return [*lines, ""]


def _codecs(out: Path, plan: Mapping) -> list[str]:
    """Reconstruction, cost, and what the latents hold; means over seeds with their smallest and largest."""
    asked = {"STOI": "stoi", "PESQ-WB": "pesq_wb", "mel distance": "mel_distance"}
    head = [
        "arm",
        "seeds",
        *asked,
        "GFLOP/s encode + decode",
        "training",
        "linear probe",
        "MLP probe",
        "CTC PER, linear",
    ]
    head += ["ABX within", "ABX across", "speaker EER"]
    costs = json.loads((out / "cost.json").read_text()) if (out / "cost.json").is_file() else {}
    lines = ["### Codecs", "", _head(head)]
    for arm in plan["arms"]:
        runs = [run for run in sorted((out / "codec").glob(f"{arm}-*")) if (run / "ended").is_file()]
        if not runs:
            continue
        reports = [Report.read(run / "report.json") for run in runs]
        cells = [
            _range([report.summary()[metric]["mean"] for report in reports], DIGITS.get(metric, 3))
            for metric in asked.values()
        ]
        facts = reports[0].facts
        cells.append(f"{facts['gflop_encode']:.2f} + {facts['gflop_decode']:.2f}")
        cells.append(f"{costs[arm]:.2f}" if arm in costs else "-")
        held = [out / "latents" / run.name / "latents.json" for run in runs]
        content = [json.loads(path.read_text(encoding="utf-8")) for path in held if path.is_file()]
        for part, number in (("linear", "accuracy"), ("mlp", "accuracy"), ("linear", "error_rate")):
            cells.append(_range([one[part][number]["mean"] for one in content]))
        for part in ("abx_within", "abx_across"):
            cells.append(_range([one[part]["mean"] for one in content if one[part]]))
        cells.append(_range([one["speaker"] for one in content]))
        lines.append(_row([arm.upper(), str(len(runs)), *cells]))
    return [*lines, ""]


def scores(found: Sequence[Judged], quiet: Sequence[Judged]) -> pandas.DataFrame:
    """A row for every flow model, kept step and bound: means over recordings, and in how many F0 could be measured."""
    rows = []
    for one in (*found, *quiet):
        about = {"condition": one.condition, "arm": one.arm, "seed": one.seed, "system": one.system}
        values = {name: round(one.score(name), 5) for name in METRICS}
        spans = int(one.report.clips["span_f0_error"].notna().sum())
        rows.append(about | {"silenced": any(one is other for other in quiet)} | values | {"spans_with_f0": spans})
    return pandas.DataFrame(rows)


def plots(found: Sequence[Judged], folder: Path, plan: Mapping) -> None:
    """scores.svg: the content score of every seed; curves.svg: how it falls with training."""
    plt.rcParams["svg.hashsalt"] = "study"
    conditions = sorted({one.condition for one in found if one.arm == "a1"}) or sorted({one.condition for one in found})
    arms = [*plan["arms"], *(f"{arm}x{times}" for arm, times in plan["patience"].items())]
    figure, axes = plt.subplots(1, len(conditions), figsize=(6 * len(conditions), 4), sharey=True, squeeze=False)
    for axis, condition in zip(axes[0], conditions, strict=True):
        mine = [one for one in found if one.condition == condition]
        for x, arm in enumerate(arms):
            values = [one.score(CONTENT) for one in mine if (one.arm, one.system) == (arm, "last")]
            if values:
                axis.plot([x] * len(values), values, "o", color="tab:blue", alpha=0.6)
                axis.plot(x, np.mean(values), "_", color="black", markersize=16)
        for bound, style in (("ceiling", ":"), ("floor", "--")):
            level = np.mean([one.score(CONTENT) for one in codecs(mine, plan) if one.system == bound])
            axis.axhline(level, linestyle=style, color="grey", label=f"{bound}, mean of all codecs")
        axis.set_xlim(-0.5, len(arms) - 0.5)  # arms that are missing have their places, too
        axis.set_xticks(range(len(arms)), [arm.upper().replace("X", "x") for arm in arms], rotation=45)
        axis.set_title(condition.replace("_", " "))
        axis.set_ylabel("phone error rate in the span")
        axis.legend()
    _save(figure, folder / "scores.svg")
    figure, axes = plt.subplots(1, len(conditions), figsize=(6 * len(conditions), 4), sharey=True, squeeze=False)
    for axis, condition in zip(axes[0], conditions, strict=True):
        for arm in (arm for arm in arms if arm.split("x")[0] in plan["curves"]):
            points: dict[int, list[float]] = {}
            mine = [one for one in found if (one.arm, one.condition) == (arm, condition) and one.system not in BOUNDS]
            kept = sorted({int(one.system) for one in mine if one.system != "last"})
            for one in mine if kept else ():
                step = kept[0] + kept[-1] if one.system == "last" else int(one.system)  # kept at equal distances
                points.setdefault(step, []).append(one.score(CONTENT))
            if points:
                steps = sorted(points)
                plain, _, times = arm.partition("x")
                style = {"color": f"C{plan['curves'].index(plain)}", "linestyle": "--" if times else "-"}
                means = [np.mean(points[step]) for step in steps]
                axis.plot(steps, means, marker="o", label=arm.upper().replace("X", "x"), **style)
        axis.set_title(condition.replace("_", " "))
        axis.set_xlabel("steps of the flow model")
        axis.set_ylabel("phone error rate in the span")
        if axis.lines:
            axis.legend()
    _save(figure, folder / "curves.svg")


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _cell(found: Sequence[Judged], metric: str) -> str:
    """Mean [95 % over speakers] (smallest to largest of the seeds). Where some recordings have no value in one of the
    reports, of how many it is; where fewer than FEW have one, that is all."""
    mean = pooled(found, metric)
    count = len(found[0].report.clips)
    some = metric != "frechet" and mean.n < count
    if some and mean.n < FEW:
        return f"- ({mean.n} of {count} spans)"
    if math.isnan(mean.mean):
        return "-"
    digits = DIGITS.get(metric, 3)
    text = f"{mean.mean:.{digits}f}"
    if not math.isnan(mean.low):
        text += f" [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"
    if some:
        return f"{text}, {mean.n} of {count} spans"
    seeds = [one.score(metric) for one in found]
    return text + (f" ({min(seeds):.{digits}f} to {max(seeds):.{digits}f})" if len(seeds) > 1 else "")


def _ahead(scores: Mapping[str, Sequence[float]]) -> str:
    """What the rule compares, in numbers, of arms that have all seeds."""
    pairs = [(a, b) for a, b in (("a1", "a0"), ("a1", "a6"), ("a0", "a6")) if a in scores and b in scores]
    told = [
        f"{a.upper()} is ahead of {b.upper()} by {np.mean(scores[b]) - np.mean(scores[a]):.3f} (seed spread "
        f"{spread(scores[a], scores[b]):.3f})"
        for a, b in pairs
    ]
    return f"{', '.join(told)}." if told else ""


def _signed(found: Interval) -> str:
    if math.isnan(found.mean):
        return "-"
    return f"{found.mean:+.3f}" + ("" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]")


def _range(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return "-"
    ends = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{ends}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(cells: Sequence[str]) -> str:
    return f"{_row(cells)}\n{_row(['---'] * len(cells))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="what run.py was given as --out")
    parser.add_argument("--to", type=Path, help="folder for tables.md and the plots (default: the same)")
    options = parser.parse_args()
    folder = options.to or options.out
    folder.mkdir(parents=True, exist_ok=True)
    plan = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    found = read(options.out)
    if not found:
        sys.exit(f"{options.out} holds nothing that was judged: run sweeps/distillation/run.py first")
    text = f"# The distillation study: what was judged\n\n{tables(found, options.out, plan)}"
    (folder / "tables.md").write_text(text, encoding="utf-8")
    scores(found, read(options.out, "silenced")).to_csv(folder / "scores.csv", index=False)
    plots(found, folder, plan)
    print(text)


if __name__ == "__main__":
    main()
