"""Plots as SVG that takes its colours and its typeface from the page around it."""

import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from codec.evaluation.html.base import Entry
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.metrics.table import ALL_METRICS
from codec.evaluation.report import metric_title

SIZE = (3.9, 2.6)  # inches
POINTS = 300  # of a curve
PANELS = 24
PALETTE = 8  # colours, --c0 ... of the style sheet
MARKERS = "osD^vPX*"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
# stand-ins that become the style sheet's colours, of light or dark
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


@dataclass
class Look:
    """How a system is drawn. colour: index into the palette."""

    colour: int
    marker: str
    dash: object


def looks(entries: Sequence[Entry]) -> list[Look]:
    """Systems of one family share a colour and a marker; beyond the palette the next dashes begin."""
    families: dict[str, list[str]] = {}
    for entry in entries:
        families.setdefault(entry.family or entry.name, []).append(entry.name)
    found = []
    for entry in entries:
        family = list(families).index(entry.family or entry.name)
        member = families[entry.family or entry.name].index(entry.name)
        dash = DASHES[(family // PALETTE + member) % len(DASHES)]
        found.append(Look(family % PALETTE, MARKERS[(family + family // PALETTE) % len(MARKERS)], dash))
    return found


def bitrate(entry: Entry) -> float:
    """kbit/s, NaN where nothing is coded."""
    rate = entry.report.facts.get("kbps")
    return float(rate) if isinstance(rate, int | float) and 0 < rate < math.inf else math.nan


def bitrate_plot(entries: Sequence[Entry], metric: str, means: Sequence[Interval]) -> str:
    """Quality (one mean per entry) over ``kbps`` as SVG: 95 % intervals, a line per family, a level where nothing is
    coded."""
    rates = [bitrate(entry) for entry in entries]

    def draw(axes: Axes) -> None:
        families: dict[str, list[int]] = {}
        for i, entry in enumerate(entries):
            families.setdefault(entry.family or entry.name, []).append(i)
        styles = looks(entries)
        for members in families.values():
            style, baseline = styles[members[0]], entries[members[0]].baseline
            colour = COLOURS[style.colour]
            coded = sorted((i for i in members if not math.isnan(rates[i])), key=lambda i: rates[i])
            x, y = [rates[i] for i in coded], [means[i].mean for i in coded]
            spread = [[means[i].mean - means[i].low for i in coded], [means[i].high - means[i].mean for i in coded]]
            line = ":" if baseline else "-"
            face = "none" if baseline else colour
            axes.errorbar(x, y, spread, color=colour, marker=style.marker, mfc=face, ms=5, lw=1.3, ls=line, capsize=2)
            for i in set(members) - set(coded):
                if not math.isnan(means[i].mean):
                    axes.axhline(means[i].mean, color=colour, lw=1.2, ls="--")
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


def curve_names(entries: Sequence[Entry]) -> list[str]:
    """What is worth a panel: validation first, then losses of training.

    Left out of training: speeds, and what is a group of its own, such as gradient norms and each codebook's usage.
    """
    names = {name: None for entry in entries if entry.curves is not None for name in entry.curves.columns}
    names = [name for name in names if name.startswith(("val/", "train/"))]
    names = [name for name in names if name.startswith("val/") or (name.count("/") == 1 and "per_s" not in name)]
    drawn = [name for name in names if any(len(curve(entry, name)) > 1 for entry in entries)]
    return sorted(drawn, key=lambda name: (not name.startswith("val/"), name.startswith("val/loss/")))


def curve(entry: Entry, name: str) -> pandas.DataFrame:
    """Columns ``step`` and ``name`` where that was logged; a long curve becomes 300 means over neighbours, or fewer."""
    if entry.curves is None or name not in entry.curves:
        return pandas.DataFrame({"step": [], name: []})
    rows = entry.curves[["step", name]].astype(float)
    rows = rows[np.isfinite(rows).all(axis=1)].sort_values("step", kind="stable")
    group = np.arange(len(rows)) // max(1, math.ceil(len(rows) / POINTS))
    return rows.groupby(group).mean()


def curve_plot(entries: Sequence[Entry], name: str) -> str:
    """One logged value over steps as SVG, a line per entry; logarithmic where it spans more than a factor of 30."""
    lines = [curve(entry, name) for entry in entries]
    values = pandas.concat([line[name] for line in lines])

    def draw(axes: Axes) -> None:
        for style, line in zip(looks(entries), lines, strict=True):
            axes.plot(line["step"], line[name], color=COLOURS[style.colour], ls=style.dash, lw=1.2)
        if values.min() > 0 and values.max() > 30 * values.min():
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("step")

    split, _, key = name.partition("/")
    title = f"{split}: {metric_title(key) if key in ALL_METRICS else key.replace('_', ' ')}"
    return _svg(draw, title, f"{title} over training steps")


def swatch(look: Look, baseline: bool, coded: bool) -> str:
    """A family's piece of the legend of `bitrate_plot` as SVG."""

    def draw(axes: Axes) -> None:
        colour, style = COLOURS[look.colour], ":" if baseline else "-"
        marker, face = look.marker, "none" if baseline else colour
        if coded:
            axes.plot([0, 0.5, 1], [0, 0, 0], color=colour, ls=style, marker=marker, mfc=face, markevery=[1], ms=5)
        else:
            axes.plot([0, 1], [0, 0], color=colour, ls="--")

    return _small(draw)


def line_swatch(look: Look) -> str:
    """An entry's piece of the legend of `curve_plot` as SVG."""
    return _small(lambda axes: axes.plot([0, 1], [0, 0], color=COLOURS[look.colour], ls=look.dash))


def _small(draw: Callable[[Axes], object]) -> str:
    def drawn(axes: Axes) -> None:
        draw(axes)
        axes.set_axis_off()

    return _svg(drawn, "", "", size=(0.42, 0.16), margins=(0.02, 0.02, 0.98, 0.98))


def _svg(
    draw: Callable[[Axes], None],
    title: str,
    label: str,
    size: tuple[float, float] = SIZE,
    margins: tuple[float, float, float, float] = (0.14, 0.17, 0.97, 0.89),
) -> str:
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=size, facecolor="none")
        axes = figure.subplots()
        left, bottom, right, top = margins
        figure.subplots_adjust(left, bottom, right, top)
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
