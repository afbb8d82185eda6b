"""The report page: systems side by side in one HTML file, with intervals, plots, and audio to compare."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from codec.evaluation.html import plots, tables
from codec.evaluation.html.base import Grid, PageError, SystemResult
from codec.evaluation.html.grid import grid_view
from codec.evaluation.html.render import MB, embedded_json, render
from codec.evaluation.html.sound import Clip, data_uri, fill, read_audio
from codec.evaluation.html.tables import Scores, decimals, higher_is_better, number, verdict
from codec.evaluation.html.tables import title as column_title
from codec.evaluation.report import format_fact, json_values
from codec.evaluation.spectrogram import spectrograms, webp
from codec.utils.atomic import write_atomic

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
    path: Path, results: Sequence[SystemResult], title: str, grid: Grid | None = None, limit_mb: float = 30.0
) -> Path:
    """Write one self-contained HTML page about one or several systems; returns its path.

    The first of ``results`` (unique names) that is no baseline orders the clips, its worst first. The file is smaller
    than ``limit_mb`` (10^6 bytes): audio is FLAC if all fits, else Opus, else Opus of the worst clips only; the page
    says which. ``grid``: of a sweep.
    """
    names = [result.name for result in results]
    if not names:
        raise PageError("A page needs at least one system.")
    if len(set(names)) < len(names):
        raise PageError(f"Systems on a page need unique names: {', '.join(names)}.")
    scores = Scores(results)
    own = [i for i, result in enumerate(results) if not result.baseline]
    lead = own[0] if own else 0
    key = scores.metrics.index("pesq_wb") if "pesq_wb" in scores.metrics else 0
    order = [str(scores.clips["clip"][i]) for i in scores.worst_first(lead, key)] if scores.metrics else []
    audible = [clip for clip in order if any(clip in result.report.audio for result in results)]
    view = _view(results, scores, own, lead, key)
    view |= {"title": title, "grid": grid_view(grid) if grid is not None else None, "audible": len(audible)}
    view["first"] = set(audible) == set(scores.clips["clip"][: len(audible)])

    def page(clips: list[tuple[Clip, list[str]]], coding: str) -> bytes:
        players = [_player(results, scores, key, clip, uris) for clip, uris in clips]
        data = embedded_json(view["data"] | {"sound": {player["clip"]: i for i, player in enumerate(players)}})
        values = view | {"data": data, "players": players, "coding": coding}
        return render("page.html", ["player.js", "page.js"], **values).encode()

    limit = int(limit_mb * MB)
    text = page([], "")
    if len(text) >= limit:
        raise PageError(f"The page is {len(text) / MB:.1f} MB without any sound, more than {limit_mb:g}.")
    coding, fitting = fill(limit - len(text), audible, lambda clip: _load(results, clip))
    for count in range(len(fitting), 0, -1):
        if len(whole := page(fitting[:count], coding)) < limit:
            text = whole
            break
    write_atomic(path, text)
    return path


def _view(results: Sequence[SystemResult], scores: Scores, own: list[int], lead: int, key: int) -> dict[str, Any]:
    """Variables of the template other than audio."""
    metrics = range(len(scores.metrics))
    means = [[scores.mean(i, m) for m in metrics] for i in range(len(results))]
    compared = own if len(own) > 1 else list(range(len(results)))
    columns = [
        {"title": column_title(name), "digits": decimals([row[m] for row in means]), "best": scores.best(m, compared)}
        for m, name in enumerate(scores.metrics)
    ]
    styles, curves = plots.line_styles(results), plots.curve_names(results)
    coded = [not math.isnan(plots.bitrate(result)) for result in results]
    families: dict[str, Markup] = {}
    for result, style, has_rate in zip(results, styles, coded, strict=True):
        families.setdefault(result.family, Markup(plots.swatch(style, result.baseline, has_rate)))
    return {
        "results": results,
        "columns": columns,
        "means": means,
        "own": own,
        "lead": lead,
        "compared": "the systems that are no baseline" if 1 < len(own) < len(results) else "all systems",
        "fewest": tables.FEWEST,
        "clips": len(scores.clips),
        "over": scores.over,
        "fewest_groups": tables.FEWEST_GROUPS,
        "all_pairs": len(results) <= tables.ALL_PAIRS,
        "costs": _costs(results),
        "facts": _other_facts(results),
        "codebooks": _codebooks(results),
        "families": families,
        "bitrates": [
            Markup(plots.bitrate_plot(results, name, [row[m] for row in means]))
            for m, name in enumerate(scores.metrics if any(coded) else [])
        ],
        "curves": [Markup(plots.curve_plot(results, name)) for name in curves[: plots.PANELS]],
        "curves_left": curves[plots.PANELS :],
        "curve_legend": [
            (result.family, Markup(plots.line_swatch(style)))
            for result, style in zip(results, styles, strict=True)
            if result.curves is not None
        ],
        "data": _data(results, scores, lead, key),
    }


def _data(results: Sequence[SystemResult], scores: Scores, lead: int, key: int) -> dict[str, Any]:
    """Scores and paired differences for page.js."""
    differences, higher = scores.differences(), [higher_is_better(name) for name in scores.metrics]
    return {
        "systems": [{"name": result.name, "baseline": result.baseline} for result in results],
        "metrics": [
            {
                "title": column_title(name),
                "higher": higher[m],
                "digits": decimals([row[m] for row in differences.values()]),
                "score_digits": 3,
            }
            for m, name in enumerate(scores.metrics)
        ],
        "lead": lead,
        "key": key,
        "fewest": tables.FEWEST,
        "fewest_groups": tables.FEWEST_GROUPS,
        "differences": {  # mean, low, high, n, groups, verdict
            pair: [[*json_values(interval), verdict(interval, higher[m])] for m, interval in enumerate(row)]
            for pair, row in differences.items()
        },
        "clips": [
            [str(row.clip), _text(row.speaker), round(float(row.seconds), 3)]
            for row in scores.clips.itertuples(index=False)
        ],
        "scores": [json_values(system.T.tolist()) for system in scores.values],
    }


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _costs(results: Sequence[SystemResult]) -> dict[str, Any]:
    """Table of costs: a column per cost that is known of any system, cells (value, digits)."""
    columns: dict[str, list[tuple[float | None, int]]] = {}
    for key, (title, digits, factor) in COSTS.items():
        values = [result.report.facts.get(key) for result in results]
        numbers = [value * factor if isinstance(value, int | float) else None for value in values]
        if any(value is not None for value in numbers):
            columns[title] = [(value, digits) for value in numbers]
    timings = [result.timing for result in results]
    for key, title in TIMES.items():
        if any(key in timing for timing in timings):
            columns[title] = [(timing.get(key), 3) for timing in timings]
    machines = {f"{timing.get('device', 'CPU')}, threads: {timing.get('threads', '–')}" for timing in timings if timing}
    rows = list(zip(*columns.values(), strict=True)) or [()] * len(results)
    return {
        "heads": list(columns),
        "rows": rows,
        "machines": sorted(machines),
        "timed": bool(columns.keys() & set(TIMES.values())),
    }


def _other_facts(results: Sequence[SystemResult]) -> list[tuple[str, list[str]]]:
    """Facts other than costs as text, a row per fact."""
    names = dict.fromkeys(name for result in results for name in result.report.facts)
    skip = {*COSTS, "codebook_usage", "codebook_perplexity", "code_frames", "codebook_usage_uniform"}
    return [(n, [format_fact(result.report.facts.get(n)) for result in results]) for n in names if n not in skip]


def _codebooks(results: Sequence[SystemResult]) -> dict[str, Any]:
    """Frames, usage of uniform codes in as many, and (usage, perplexity) of each codebook of the systems with codes."""
    rows = []
    for result in results:
        usage, perplexity = (result.report.facts.get(f"codebook_{name}") for name in ("usage", "perplexity"))
        if usage and perplexity:
            known = (result.report.facts.get(name) for name in ("code_frames", "codebook_usage_uniform"))
            rows.append((result.name, *known, list(zip(usage, perplexity, strict=True))))
    return {"rows": rows, "count": max((len(cells) for *_, cells in rows), default=0)}


def _load(results: Sequence[SystemResult], clip: str) -> Clip:
    """The reference of the system with the highest rate, each system's output, and spectrograms."""
    having = [result for result in results if clip in result.report.audio]
    first = max(having, key=lambda result: result.report.facts.get("sample_rate") or 0)
    waves = [read_audio(first, clip, "reference"), *(read_audio(result, clip, "decoded") for result in having)]
    pictures = spectrograms([(wav / 32768, rate) for wav, rate in waves])
    return Clip(clip, waves, [data_uri("image/webp", webp(picture)) for picture in pictures])


def _player(results: Sequence[SystemResult], scores: Scores, key: int, clip: Clip, uris: list[str]) -> dict[str, Any]:
    """One clip with its tracks for the template, and each system's score in the metric that orders the clips."""
    systems = [i for i, result in enumerate(results) if clip.name in result.report.audio]
    row = list(scores.clips["clip"]).index(clip.name)
    titles = [column_title(name) for name in scores.metrics]
    names = ["reference", *(results[i].name for i in systems)]
    values = [[], *(list(zip(titles, scores.values[i, :, row], strict=True)) for i in systems)]
    tracks = zip(names, values, uris, clip.pictures, strict=True)
    return {
        "clip": clip.name,
        "speaker": _text(scores.clips["speaker"][row]),
        "seconds": len(clip.waves[0][0]) / clip.waves[0][1],
        "score_title": titles[key] if titles else "",
        "scores": [number(scores.values[i, key, row], 2) for i in systems] if titles else [],
        "top_khz": max(rate for _, rate in clip.waves) / 2000,
        "tracks": [dict(zip(("name", "scores", "sound", "picture"), track, strict=True)) for track in tracks],
    }
