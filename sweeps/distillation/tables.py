"""Tables and plots of the distillation study: ``python sweeps/distillation/tables.py OUT [--to FOLDER]``.

Reads the reports of run.py and cost.py in OUT; writes tables.md, scores.csv (every flow model and bound) and two plots
(SVG) to FOLDER (default: OUT). Arms with missing seeds are in the tables, without a verdict.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas
import yaml

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from results import (  # noqa: E402
    BOUNDS,
    CONTENT,
    METRICS,
    Judged,
    codec_of,
    codecs,
    difference,
    pooled,
    read,
    select,
    spread,
    verdict,
)

from codec.evaluation.metrics.intervals import Interval  # noqa: E402
from codec.evaluation.report import Report  # noqa: E402

DIGITS = {"span_mcd": 2, "span_f0_rmse": 0, "frechet": 2, "pesq_wb": 2, "mel_distance": 2}  # of all others 3
FEWEST = 20  # recordings: a mean over fewer is not shown; of many spans no F0 can be measured


def all_arms(plan: Mapping) -> list[str]:
    return [*plan["arms"], *(f"{arm}x{times}" for arm, times in plan["patience"].items())]


def tables(found: Sequence[Judged], out: Path, plan: Mapping) -> str:
    """All tables as Markdown."""
    lines = []
    for condition in sorted({one.condition for one in found}):
        lines += _condition(select(found, condition=condition), condition, plan)
    lines += _curves(found, plan) + _silenced(found, read(out, "silenced"), plan)
    return "\n".join([*lines, *_bounds(found, plan), *_codecs(out, plan)])


def _condition(found: Sequence[Judged], condition: str, plan: Mapping) -> list[str]:
    """Table of all arms and bounds at the end of training, and the verdict."""
    rows, content = [], {}
    for arm in sorted({one.arm for one in found}, key=all_arms(plan).index):
        last, plain = (select(found, arm=name, system="last") for name in (arm, _reference(arm)))
        content[arm] = [one.score(CONTENT) for one in last]
        cells = [_cell(last, metric) for metric in METRICS]
        less = "-" if arm == "a0" else _signed(difference(last, plain))
        rows.append([_name(arm), len(last), cells[0], less, *cells[1:]])
    bounds = codecs(found, plan)
    for bound in BOUNDS:
        own = select(bounds, system=bound)
        cells = [_cell(own, metric) for metric in METRICS]
        name = bound if bound == "recording" else f"{bound}, all codecs"
        rows.append([name, len(own), cells[0], "-", *cells[1:]])
    floor = float(np.mean([one.score(CONTENT) for one in select(bounds, system="floor")]))
    whole = {arm: scores for arm, scores in content.items() if len(scores) >= len(plan["seeds"])}
    answer = verdict(whole, floor) if {"a0", "a1", "a6"} <= set(whole) else "seeds are missing"
    if left_out := [arm.upper() for arm in content if arm not in whole and "x" not in arm]:
        answer += f"; without {', '.join(left_out)}, whose seeds are missing"
    head = ["arm", "seeds", METRICS[CONTENT], "minus A0's", *list(METRICS.values())[1:]]
    lines = [*_table(f"Inpainted spans, {_spaced(condition)}", head, rows)]
    lines += [f"By the rule: {answer}. {_margins(whole)}".rstrip(), ""]
    longer = any("x" in arm and _reference(arm) != "a0" for arm in content)
    return [*lines, "Arms with more steps are compared with A0 with as many.", ""] if longer else lines


def _reference(arm: str) -> str:
    """Arm that an arm is compared with: a0 with as many steps; a0 with more steps with a0."""
    return "a0" if arm.startswith("a0") else arm.replace(arm.partition("x")[0], "a0")


def _curves(found: Sequence[Judged], plan: Mapping) -> list[str]:
    """Table of the checkpoints before the last."""
    kept: dict[tuple, list[Judged]] = {}
    for one in found:
        arm, _, times = one.arm.partition("x")
        if one.system.isdigit() and arm in plan["curves"]:
            kept.setdefault((one.condition, times, int(one.system), arm), []).append(one)
    rows = []
    for (condition, times, step, arm), own in sorted(kept.items()):
        less = "-" if arm == "a0" else _signed(difference(own, kept.get((condition, times, step, "a0"), [])))
        rows.append([_spaced(condition), _name(own[0].arm), step, len(own), _cell(own, CONTENT), less])
    head = ["condition", "arm", "step", "seeds", METRICS[CONTENT], "minus A0's with as many steps"]
    return _table("During training", head, rows)


def _silenced(found: Sequence[Judged], quiet: Sequence[Judged], plan: Mapping) -> list[str]:
    """Table of the information on a span that the latents of its neighbours hold."""
    rows = []
    for condition in sorted({one.condition for one in quiet}):
        last = select(quiet, condition=condition, system="last")
        for arm in sorted({one.arm for one in last}, key=all_arms(plan).index):
            own, plain = select(last, arm=arm), select(last, arm=_reference(arm))
            usual = select(found, condition=condition, system="last", arm=arm)
            less = "-" if arm == "a0" else _signed(difference(own, plain))
            cells = [_cell(own, CONTENT), less, _signed(difference(own, usual))]
            rows.append([_spaced(condition), _name(arm), len(own), *cells])
    head = ["condition", "arm", "seeds", "silenced", "minus A0's", "minus that with traces"]
    return _table("Phone error rate with context that was encoded with silence in the span", head, rows)


def _bounds(found: Sequence[Judged], plan: Mapping) -> list[str]:
    """Table of each codec's ceiling and floor, on recordings of one condition, as those of others differ a little."""
    condition = min(one.condition for one in found)
    columns = [("ceiling", CONTENT), ("floor", CONTENT)]
    columns += [("ceiling", metric) for metric in ("span_speaker", "span_mcd", "span_f0_rmse")]
    mine: dict[str, list[Judged]] = {}
    for one in codecs(select(found, condition=condition), plan):
        mine.setdefault(codec_of(one.arm, plan), []).append(one)
    rows = []
    for arm in sorted(mine, key=list(plan["arms"]).index):
        cells = [_cell(select(mine[arm], system=bound), metric) for bound, metric in columns]
        rows.append([arm.upper(), len(select(mine[arm], system="ceiling")), *cells])
    head = ["arm", "seeds", *(f"{bound}: {METRICS[metric]}" for bound, metric in columns)]
    return _table(f"Ceiling and floor of each codec, recordings of {_spaced(condition)}", head, rows)


def _codecs(out: Path, plan: Mapping) -> list[str]:
    """Table of reconstruction, cost, and probes of the latents; means over seeds with their smallest and largest."""
    metrics = {"STOI": "stoi", "PESQ-WB": "pesq_wb", "mel distance": "mel_distance"}
    costs = json.loads((out / "cost.json").read_text()) if (out / "cost.json").is_file() else {}
    rows = []
    for arm in plan["arms"]:
        runs = [run for run in sorted((out / "codec").glob(f"{arm}-*")) if (run / "ended").is_file()]
        if not runs:
            continue
        reports = [Report.read(run / "report.json") for run in runs]
        summaries = [report.summary() for report in reports]
        cells = [_range([s[name]["mean"] for s in summaries], DIGITS.get(name, 3)) for name in metrics.values()]
        facts = reports[0].facts
        cells.append(f"{facts['gflop_encode']:.2f} + {facts['gflop_decode']:.2f}")
        cells.append(f"{costs[arm]:.2f}" if arm in costs else "-")
        paths = [out / "latents" / run.name / "latents.json" for run in runs]
        probes = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
        for part, number in (("linear", "accuracy"), ("mlp", "accuracy"), ("linear", "error_rate")):
            cells.append(_range([one[part][number]["mean"] for one in probes]))
        for part in ("abx_within", "abx_across"):
            cells.append(_range([one[part]["mean"] for one in probes if one[part]]))
        rows.append([arm.upper(), len(runs), *cells, _range([one["speaker"] for one in probes])])
    head = ["arm", "seeds", *metrics, "GFLOP/s encode + decode", "training", "linear probe", "MLP probe"]
    return _table("Codecs", [*head, "CTC PER, linear", "ABX within", "ABX across", "speaker EER"], rows)


def scores(found: Sequence[Judged], quiet: Sequence[Judged]) -> pandas.DataFrame:
    """Row per flow model, step and bound: means over recordings, and the number of spans with a measured F0."""
    rows = []
    for silenced, reports in ((False, found), (True, quiet)):
        for one in reports:
            row = {"condition": one.condition, "arm": one.arm, "seed": one.seed, "system": one.system}
            row |= {"silenced": silenced} | {name: round(one.score(name), 5) for name in METRICS}
            rows.append(row | {"spans_with_f0": int(one.report.clips["span_f0_rmse"].notna().sum())})
    return pandas.DataFrame(rows)


def plots(found: Sequence[Judged], folder: Path, plan: Mapping) -> None:
    """Plots scores.svg, the phone error rate of every seed, and curves.svg, the same over the steps of training."""
    plt.rcParams["svg.hashsalt"] = "study"
    conditions = sorted({one.condition for one in found if one.arm == "a1"}) or sorted({one.condition for one in found})
    for name, draw in (("scores", _plot_scores), ("curves", _plot_curves)):
        figure, axes = plt.subplots(1, len(conditions), figsize=(6 * len(conditions), 4), sharey=True, squeeze=False)
        for axis, condition in zip(axes[0], conditions, strict=True):
            draw(axis, select(found, condition=condition), plan)
            axis.set_title(_spaced(condition))
            axis.set_ylabel("phone error rate in the span")
            if axis.lines:
                axis.legend()
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


def _plot_scores(axis: plt.Axes, found: Sequence[Judged], plan: Mapping) -> None:
    arms = all_arms(plan)
    for x, arm in enumerate(arms):
        if values := [one.score(CONTENT) for one in select(found, arm=arm, system="last")]:
            axis.plot([x] * len(values), values, "o", color="tab:blue", alpha=0.6)
            axis.plot(x, np.mean(values), "_", color="black", markersize=16)
    for bound, style in (("ceiling", ":"), ("floor", "--")):
        level = np.mean([one.score(CONTENT) for one in select(codecs(found, plan), system=bound)])
        axis.axhline(level, linestyle=style, color="grey", label=f"{bound}, mean of all codecs")
    axis.set_xlim(-0.5, len(arms) - 0.5)  # missing arms have their places, too
    axis.set_xticks(range(len(arms)), [arm.upper().replace("X", "x") for arm in arms], rotation=45)


def _plot_curves(axis: plt.Axes, found: Sequence[Judged], plan: Mapping) -> None:
    for arm in all_arms(plan):
        plain, _, times = arm.partition("x")
        mine = [one for one in select(found, arm=arm) if one.system not in BOUNDS]
        kept = sorted({int(one.system) for one in mine if one.system != "last"})
        if plain not in plan["curves"] or not kept:
            continue
        points: dict[int, list[float]] = {}
        for one in mine:
            step = kept[0] + kept[-1] if one.system == "last" else int(one.system)  # at equal distances
            points.setdefault(step, []).append(one.score(CONTENT))
        style = {"color": f"C{plan['curves'].index(plain)}", "linestyle": "--" if times else "-"}
        means = [np.mean(points[step]) for step in sorted(points)]
        axis.plot(sorted(points), means, marker="o", label=arm.upper().replace("X", "x"), **style)
    axis.set_xlabel("steps of the flow model")


def _cell(found: Sequence[Judged], metric: str) -> str:
    """Mean [95 % over speakers] (range of seeds), or number of recordings with a value; that alone below FEWEST."""
    mean = pooled(found, metric)
    count = len(found[0].report.clips)
    some = metric != "frechet" and mean.n < count
    if some and mean.n < FEWEST:
        return f"- ({mean.n} of {count} spans)"
    if math.isnan(mean.mean):
        return "-"
    digits = DIGITS.get(metric, 3)
    text = f"{mean.mean:.{digits}f}"
    if not math.isnan(mean.low):
        text += f" [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"
    if some:
        return f"{text}, {mean.n} of {count} spans"
    return text + _ends([one.score(metric) for one in found], digits)


def _margins(scores: Mapping[str, Sequence[float]]) -> str:
    """Differences that the rule compares, of arms that have all seeds."""
    pairs = [(a, b) for a, b in (("a1", "a0"), ("a1", "a6"), ("a0", "a6")) if a in scores and b in scores]
    margins = [
        f"{a.upper()} is ahead of {b.upper()} by {np.mean(scores[b]) - np.mean(scores[a]):.3f} (seed spread "
        f"{spread(scores[a], scores[b]):.3f})"
        for a, b in pairs
    ]
    return f"{', '.join(margins)}." if margins else ""


def _signed(found: Interval) -> str:
    if math.isnan(found.mean):
        return "-"
    return f"{found.mean:+.3f}" + ("" if math.isnan(found.low) else f" [{found.low:+.3f}, {found.high:+.3f}]")


def _range(values: Sequence[float], digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f}{_ends(values, digits)}" if values else "-"


def _ends(values: Sequence[float], digits: int) -> str:
    return f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""


def _name(arm: str) -> str:
    return arm.upper().replace("X", " x ")


def _spaced(condition: str) -> str:
    return condition.replace("_", " ")


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence]) -> list[str]:
    """Lines of Markdown; none without rows."""
    body = [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]
    return [f"### {title}", "", *body, ""] if rows else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the --out of run.py")
    parser.add_argument("--to", type=Path, help="folder for tables.md and the plots (default: the same)")
    options = parser.parse_args()
    folder = options.to or options.out
    folder.mkdir(parents=True, exist_ok=True)
    plan = yaml.safe_load((HERE / "study.yaml").read_text(encoding="utf-8"))
    found = read(options.out)
    if not found:
        sys.exit(f"{options.out} has no finished evaluation: run sweeps/distillation/run.py first")
    text = f"# The distillation study: what was judged\n\n{tables(found, options.out, plan)}"
    (folder / "tables.md").write_text(text, encoding="utf-8")
    scores(found, read(options.out, "silenced")).to_csv(folder / "scores.csv", index=False)
    plots(found, folder, plan)
    print(text)


if __name__ == "__main__":
    main()
