"""One run, or several systems side by side, as one HTML file: numbers with intervals, plots, and sound to listen to."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from codec.evaluation.html import plots
from codec.evaluation.html.base import Entry, Grid, PageError
from codec.evaluation.html.grid import grid_view
from codec.evaluation.html.html import MB, embedded, render, save
from codec.evaluation.html.pictures import spectrograms
from codec.evaluation.html.sound import Clip, Coding, data_uri, fill, read
from codec.evaluation.html.tables import ALL_PAIRS, FEWEST, Scores, decimals, higher_is_better, number, verdict
from codec.evaluation.html.tables import title as column_title
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.report import plain, show

COSTS = {  # fact -> title, digits, factor
    "kbps": ("kbit/s", 2, 1),
    "entropy_kbps": ("entropy, kbit/s", 2, 1),
    "frame_rate_hz": ("frames/s", 1, 1),
    "n_q": ("codebooks", 0, 1),
    "latency_ms": ("latency, ms", 1, 1),
    "parameters": ("parameters, M", 2, 1e-6),
    "gflop_encode": ("GFLOP, encode", 2, 1),
    "gflop_decode": ("GFLOP, decode", 2, 1),
}
TIMES = {"rtf_encode": "RTF, encode", "rtf_decode": "RTF, decode"}


def write_page(
    path: str | Path, entries: Sequence[Entry], title: str, grid: Grid | None = None, limit_mb: float = 30.0
) -> Path:
    """Write a page about one system or several to ``path``, an HTML file that needs no other and no network.

    The same arguments give the same bytes.

    Args:
        entries: at least one; names are unique. The first that is no baseline orders the clips: its worst come first.
        grid: of a sweep: its runs and main effects.
        limit_mb: the file is smaller than so many megabytes (10^6 bytes). Sound is FLAC while that fits, else Opus,
            else only the worst clips have sound; the page says which.

    Returns:
        the path.

    Raises:
        PageError: if there is no entry, two share a name, or the page is too large without any sound.
        ReportError: if a report names a sound file that cannot be read.
    """
    names = [entry.name for entry in entries]
    if not names:
        raise PageError("A page needs at least one system.")
    if len(set(names)) < len(names):
        raise PageError(f"Systems on a page need names of their own: {', '.join(names)}.")
    scores = Scores(entries)
    own = [i for i, entry in enumerate(entries) if not entry.baseline]
    lead = own[0] if own else 0
    key = scores.metrics.index("pesq_wb") if "pesq_wb" in scores.metrics else 0
    order = [str(scores.clips["clip"][i]) for i in scores.worst_first(lead, key)] if scores.metrics else []
    audible = [clip for clip in order if any(clip in entry.report.audio for entry in entries)]
    view = _view(entries, scores, own, lead, key)
    view |= {"title": title, "grid": grid_view(grid) if grid is not None else None, "audible": len(audible)}
    view["first"] = set(audible) == set(scores.clips["clip"][: len(audible)])

    limit = int(limit_mb * MB)
    text = _page(view, [], None)
    if _size(text) >= limit:
        raise PageError(f"The page is {_size(text) / MB:.1f} MB without any sound, more than {limit_mb:g}.")
    coding, kept = fill(limit - _size(text), audible, lambda clip: _load(entries, clip))
    for count in range(len(kept), 0, -1):
        whole = _page(view, [_player(entries, scores, key, *clip) for clip in kept[:count]], coding)
        if _size(whole) < limit:
            text = whole
            break
    return save(path, text)


def _page(view: dict[str, Any], players: list[dict[str, Any]], coding: Coding | None) -> str:
    data = embedded(view["data"] | {"sound": {player["clip"]: i for i, player in enumerate(players)}})
    return render("page.html", ["player.js", "page.js"], **view | {"data": data, "players": players, "coding": coding})


def _size(text: str) -> int:
    return len(text.encode())


def _view(entries: Sequence[Entry], scores: Scores, own: list[int], lead: int, key: int) -> dict[str, Any]:
    """What the template shows, but for the sound."""
    everyone = range(len(entries))
    contest = own if len(own) > 1 else list(everyone)
    means = [[scores.mean(i, m) for m in range(len(scores.metrics))] for i in everyone]
    columns = []
    for m, name in enumerate(scores.metrics):
        digits = decimals([row[m] for row in means])
        columns.append({"key": name, "title": column_title(name), "digits": digits, "best": scores.best(m, contest)})
    differences = scores.differences()
    for m, column in enumerate(columns):
        column["difference_digits"] = decimals([row[m] for row in differences.values()])
    looks = plots.looks(entries)
    curves = plots.curve_names(entries)
    coded = any(not math.isnan(plots.bitrate(entry)) for entry in entries)
    drawn = scores.metrics if coded else []
    return {
        "entries": entries,
        "columns": columns,
        "means": means,
        "failures": [len(entry.report.failures) for entry in entries],
        "own": own,
        "lead": lead,
        "contest": "the systems that are no baseline" if 1 < len(own) < len(entries) else "all systems",
        "fewest": FEWEST,
        "clips": len(scores.clips),
        "speakers": _speakers(scores),
        "all_pairs": len(entries) <= ALL_PAIRS,
        "costs": _costs(entries),
        "facts": _facts(entries),
        "codebooks": _codebooks(entries),
        "families": _legend(entries, looks),
        "bitrates": [
            Markup(plots.bitrate_plot(entries, name, [row[m] for row in means])) for m, name in enumerate(drawn)
        ],
        "curves": [Markup(plots.curve_plot(entries, name)) for name in curves[: plots.PANELS]],
        "curves_left": curves[plots.PANELS :],
        "curve_legend": [
            {"name": entry.family or entry.name, "swatch": Markup(plots.line_swatch(look))}
            for entry, look in zip(entries, looks, strict=True)
            if entry.curves is not None
        ],
        "data": {
            "systems": [{"name": entry.name, "baseline": entry.baseline} for entry in entries],
            "metrics": [
                {
                    "title": column["title"],
                    "higher": higher_is_better(column["key"]),
                    "digits": column["difference_digits"],
                    "score_digits": 3,
                }
                for column in columns
            ],
            "lead": lead,
            "key": key,
            "fewest": FEWEST,
            "differences": {
                pair: [_difference(scores.metrics[m], interval) for m, interval in enumerate(row)]
                for pair, row in differences.items()
            },
            "clips": [
                [str(row.clip), _text(row.speaker), round(float(row.seconds), 3)]
                for row in scores.clips.itertuples(index=False)
            ],
            "scores": [[plain(scores.values[i, :, c].tolist()) for c in range(len(scores.clips))] for i in everyone],
        },
    }


def _difference(metric: str, interval: Interval) -> list:
    """mean, low, high, n and verdict, for JSON."""
    return [*plain(interval), verdict(interval, higher_is_better(metric))]


def _speakers(scores: Scores) -> int | None:
    """How many speakers said the clips; None unless it is known of every clip."""
    known = {_text(speaker) for speaker in scores.clips["speaker"]}
    return None if "" in known else len(known)


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _costs(entries: Sequence[Entry]) -> dict[str, Any]:
    """What each system costs: a column for what is known of any."""
    facts = [key for key in COSTS if any(isinstance(e.report.facts.get(key), int | float) for e in entries)]
    times = [key for key in TIMES if any(key in e.timing for e in entries)]
    rows = []
    for entry in entries:
        cells = []
        for key in facts:
            value, (_, digits, factor) = entry.report.facts.get(key), COSTS[key]
            cells.append((value * factor, digits) if isinstance(value, int | float) else (None, 0))
        cells += [(entry.timing.get(key), 3) for key in times]
        rows.append(cells)
    machines = {
        f"{e.timing.get('device', 'CPU')}, threads: {e.timing.get('threads', '–')}" for e in entries if e.timing
    }
    heads = [COSTS[key][0] for key in facts] + [TIMES[key] for key in times]
    return {"heads": heads, "rows": rows, "machines": sorted(machines), "timed": bool(times)}


def _facts(entries: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """Every other fact as text, a row per fact."""
    skip = {*COSTS, "codebook_usage", "codebook_perplexity"}
    names = {name: None for entry in entries for name in entry.report.facts if name not in skip}
    return [(name, [show(entry.report.facts.get(name)) for entry in entries]) for name in names]


def _codebooks(entries: Sequence[Entry]) -> dict[str, Any]:
    """Usage and perplexity per codebook of the systems that count them."""
    rows = []
    for entry in entries:
        usage, perplexity = (entry.report.facts.get(f"codebook_{name}") for name in ("usage", "perplexity"))
        if usage and perplexity:
            rows.append((entry.name, list(zip(usage, perplexity, strict=True))))
    return {"rows": rows, "count": max((len(cells) for _, cells in rows), default=0)}


def _legend(entries: Sequence[Entry], looks: Sequence[plots.Look]) -> list[dict[str, Any]]:
    """One swatch per family, as its members are drawn."""
    found: dict[str, dict[str, Any]] = {}
    for entry, look in zip(entries, looks, strict=True):
        name, coded = entry.family or entry.name, not math.isnan(plots.bitrate(entry))
        found.setdefault(name, {"name": name, "swatch": Markup(plots.swatch(look, entry.baseline, coded))})
    return list(found.values())


def _load(entries: Sequence[Entry], clip: str) -> Clip:
    """The reference of the system with the highest rate, then each system's own in their order, and spectrograms."""
    heard = [entry for entry in entries if clip in entry.report.audio]
    first = max(heard, key=lambda entry: entry.report.facts.get("sample_rate") or 0)
    waves = [read(first, clip, "reference"), *(read(entry, clip, "decoded") for entry in heard)]
    return Clip(clip, waves, [data_uri("image/webp", picture) for picture in spectrograms(waves)])


def _player(entries: Sequence[Entry], scores: Scores, key: int, clip: Clip, sounds: list[str]) -> dict[str, Any]:
    """One clip with all of its tracks for the template, and each system's score in the metric that orders clips."""
    heard = [i for i, entry in enumerate(entries) if clip.name in entry.report.audio]
    row = list(scores.clips["clip"]).index(clip.name)
    titles = [column_title(name) for name in scores.metrics]
    names = ["reference", *(entries[i].name for i in heard)]
    values = [[], *(list(zip(titles, scores.values[i, :, row], strict=True)) for i in heard)]
    tracks = zip(names, values, sounds, clip.pictures, strict=True)
    return {
        "clip": clip.name,
        "speaker": _text(scores.clips["speaker"][row]),
        "seconds": len(clip.waves[0][0]) / clip.waves[0][1],
        "score_title": titles[key] if titles else "",
        "scores": [number(scores.values[i, key, row], 2) for i in heard] if titles else [],
        "top_khz": max(rate for _, rate in clip.waves) / 2000,
        "tracks": [dict(zip(("name", "scores", "sound", "picture"), track, strict=True)) for track in tracks],
    }
