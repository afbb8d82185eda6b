"""SVG plots with the colours and the typeface of the page's style sheet."""

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from codec.evaluation.html.base import SystemResult
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.metrics.table import ALL_METRICS
from codec.evaluation.report import metric_title

SIZE = (3.9, 2.6)  # inches
POINTS = 300  # of a curve
PANELS = 24
PALETTE = 8  # colours, --c0 ... of the style sheet
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
# placeholders that are replaced by the style sheet's colours, of light or dark mode
INK, RULE, MUTED, COLOURS = "#fa1200", "#fa1300", "#fa1400", [f"#fa11{i:02x}" for i in range(PALETTE)]
RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "page",
    "font.size": 9,
    "lines.linewidth": 1.4,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
}
TICKS = [m * 10.0**e for e in range(-2, 4) for m in (1, 1.5, 2, 3, 4, 6, 8)]  # kbit/s


class LineStyle(NamedTuple):
    """Colour, marker and dash pattern of a system."""

    colour: str
    marker: str
    dash: object


def line_styles(results: Sequence[SystemResult]) -> list[LineStyle]:
    """A style per system: families share colour and marker, their members differ in dashes."""
    families: dict[str, list[str]] = {}
    for result in results:
        families.setdefault(result.family, []).append(result.name)
    styles = []
    for result in results:
        family, member = list(families).index(result.family), families[result.family].index(result.name)
        marker = MARKERS[(family + family // PALETTE) % len(MARKERS)]
        styles.append(LineStyle(COLOURS[family % PALETTE], marker, DASHES[(family // PALETTE + member) % len(DASHES)]))
    return styles


def bitrate(result: SystemResult) -> float:
    """Bitrate in kbit/s; NaN for a system that codes nothing."""
    rate = result.report.facts.get("kbps")
    return float(rate) if isinstance(rate, int | float) and 0 < rate < math.inf else math.nan


def bitrate_plot(results: Sequence[SystemResult], metric: str, means: Sequence[Interval]) -> str:
    """Quality over bitrate as SVG, with 95 % intervals: a line per family, horizontal if nothing is coded."""
    rates, styles = [bitrate(result) for result in results], line_styles(results)

    def draw(axes: Axes) -> None:
        for family in dict.fromkeys(result.family for result in results):
            members = [i for i, result in enumerate(results) if result.family == family]
            style, baseline = styles[members[0]], results[members[0]].baseline
            coded = sorted((i for i in members if not math.isnan(rates[i])), key=lambda i: rates[i])
            axes.errorbar(
                [rates[i] for i in coded],
                [means[i].mean for i in coded],
                [[means[i].mean - means[i].low for i in coded], [means[i].high - means[i].mean for i in coded]],
                **_family_style(style, baseline),
                lw=1.3,
                capsize=2,
            )
            for i in set(members) - set(coded):
                if not math.isnan(means[i].mean):
                    axes.axhline(means[i].mean, color=style.colour, lw=1.2, ls="--")
        known = [rate for rate in rates if not math.isnan(rate)]
        if known:
            low, high = min(known) / 1.25, max(known) * 1.25
            axes.set_xscale("log")
            axes.set_xlim(low, high)
            ticks = [tick for tick in TICKS if low <= tick <= high]
            axes.xaxis.set_major_locator(FixedLocator(ticks[:: max(1, math.ceil(len(ticks) / 8))]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.set_xticks([])
        axes.set_xlabel("kbit/s")

    return _svg(draw, metric_title(metric), f"{metric_title(metric)} against bitrate")


def _family_style(style: LineStyle, baseline: bool) -> dict[str, object]:
    face = "none" if baseline else style.colour
    return {"color": style.colour, "marker": style.marker, "mfc": face, "ms": 5, "ls": ":" if baseline else "-"}


def curve_names(results: Sequence[SystemResult]) -> list[str]:
    """Logged values that are plotted: validation, then training losses; no speeds, no ``train/usage/...``."""
    names = dict.fromkeys(name for result in results if result.curves is not None for name in result.curves.columns)
    loss = re.compile(r"train/(?!.*per_s)[^/]*")
    names = [name for name in names if name.startswith("val/") or loss.fullmatch(name)]
    drawn = [name for name in names if any(len(curve(result, name)) > 1 for result in results)]
    return sorted(drawn, key=lambda name: (not name.startswith("val/"), name.startswith("val/loss/")))


def curve(result: SystemResult, name: str) -> pandas.DataFrame:
    """A logged value, columns ``step`` and ``name``; a long curve becomes at most 300 means over neighbours."""
    if result.curves is None or name not in result.curves:
        return pandas.DataFrame({"step": [], name: []})
    rows = result.curves[["step", name]].astype(float)
    rows = rows[np.isfinite(rows).all(axis=1)].sort_values("step", kind="stable")
    group = np.arange(len(rows)) // max(1, math.ceil(len(rows) / POINTS))
    return rows.groupby(group).mean()


def curve_plot(results: Sequence[SystemResult], name: str) -> str:
    """One logged value over steps as SVG, a line per result; logarithmic if it spans more than a factor of 30."""
    lines = [curve(result, name) for result in results]
    values = pandas.concat([line[name] for line in lines])

    def draw(axes: Axes) -> None:
        for style, line in zip(line_styles(results), lines, strict=True):
            axes.plot(line["step"], line[name], color=style.colour, ls=style.dash, lw=1.2)
        if values.min() > 0 and values.max() > 30 * values.min():
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")

    split, _, key = name.partition("/")
    title = f"{split}: {metric_title(key) if key in ALL_METRICS else key.replace('_', ' ')}"
    return _svg(draw, title, f"{title} over training steps")


def swatch(style: LineStyle, baseline: bool, coded: bool) -> str:
    """A family's symbol in the legend of `bitrate_plot` as SVG."""
    if coded:
        return _small(lambda axes: axes.plot([0, 0.5, 1], [0, 0, 0], markevery=[1], **_family_style(style, baseline)))
    return _small(lambda axes: axes.plot([0, 1], [0, 0], color=style.colour, ls="--"))


def line_swatch(style: LineStyle) -> str:
    """A result's symbol in the legend of `curve_plot` as SVG."""
    return _small(lambda axes: axes.plot([0, 1], [0, 0], color=style.colour, ls=style.dash))


def _small(draw: Callable[[Axes], object]) -> str:
    def without_axes(axes: Axes) -> None:
        draw(axes)
        axes.set_axis_off()

    return _svg(without_axes, "", "", size=(0.42, 0.16), margins=(0.02, 0.02, 0.98, 0.98))


def _svg(
    draw: Callable[[Axes], None],
    title: str,
    label: str,
    size: tuple[float, float] = SIZE,
    margins: tuple[float, float, float, float] = (0.14, 0.17, 0.97, 0.89),  # left, bottom, right, top
) -> str:
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=size, facecolor="none")
        axes = figure.subplots()
        figure.subplots_adjust(*margins)
        axes.patch.set_visible(False)
        axes.set_title(title, parse_math=False)  # names of metrics and losses come from files
        axes.grid(axis="y")
        axes.tick_params(length=0)
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    text = text.replace(INK, "currentColor").replace(RULE, "var(--rule)").replace(MUTED, "var(--muted)")
    for i, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{i})")
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    name = f'role="img" aria-label="{html.escape(label)}"' if label else 'aria-hidden="true"'
    return re.sub(r"\s*\n\s*", "\n", text.replace("<svg", f"<svg {name}", 1)).strip()
