"""One table of all that fill in spans of latents: recording, ceiling, floor and models, by decoded audio only."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas

from codec.evaluation.evaluate import clip_name
from codec.evaluation.judges.frechet import frechet_distance
from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.intervals import Interval, bootstrap
from codec.evaluation.report import Report, aligned, metric_title, show
from codec.evaluation.report_schema import ABOUT_CLIP
from codec.flow.evaluation.bounds import draw_span, rest_after
from codec.flow.evaluation.panel import Panel, Recording
from codec.utils.errors import InputError

RECORDING, CEILING, FLOOR = "recording", "copy synthesis (ceiling)", "interpolation (floor)"
RESAMPLES = 2000
SILENCED = "What is known was encoded with silence in the span; between it the ceiling has the true latents."


def with_spans(
    clips: Iterable[Mapping[str, Any]],
    sample_rate: int,
    seed: int = 0,
    longest: float = math.inf,
    most: int | None = None,
    after: float | None = None,
) -> tuple[list[Recording], list[tuple[str, str]]]:
    """Held-out items at ``sample_rate`` Hz -> recordings with a span each, and (file, reason) of those without room.

    The same clips and seed give the same spans, in seconds, for every codec.

    Args:
        longest: seconds; longer ones are not used.
        most: recordings; the rest are not read.
        after: seconds; instead of a span that is drawn, all that follows them.
    """
    found, skipped, taken = [], [], set()
    for number, item in enumerate(clips):
        wav, name = item["wav"][0].numpy(), clip_name(item, number, taken)
        taken.add(name)
        seconds = len(wav) / sample_rate
        try:
            if seconds > longest:
                raise InputError(f"a recording of {seconds:.2f} s is longer than {longest:g} s")
            phones = item["phones"]
            span = draw_span(phones, seconds, seed, number) if after is None else rest_after(after, phones, seconds)
        except InputError as error:
            skipped.append((name, str(error)))
        else:
            found.append(Recording(name, item["speaker"], wav, item["phones"], span, item["text"]))
        if len(found) == most:
            break
    return found, skipped


def judged(
    name: str,
    recordings: Iterable[Recording],
    sounds: Mapping[str, np.ndarray | InputError],
    sample_rate: int,
    panel: Panel,
    facts: Mapping[str, Any] | None = None,
) -> Report:
    """The report of one system: every score is of the span, as decoded.

    Facts are the Frechet distance of its spans to those of the recordings (``frechet``), what it is between halves of
    the recordings, each with half of every speaker's (``frechet_halves``), of how many vectors (``frechet_n``), the
    means of all metrics with their intervals over speakers (``intervals``), and who judged.

    Args:
        sounds: by clip, what the system made of it: ``[T]`` as long as the recording, or why it made nothing, which is
            listed as a failure and has no scores.

    Raises:
        InputError: if there is no recording, or a system returns another length.
    """
    rows, failures, features = [], [], []
    originals: list[list[np.ndarray]] = [[], []]  # halves
    seen: Counter[str] = Counter()
    for recording in recordings:
        seconds = recording.span[1] - recording.span[0]
        row = {"clip": recording.clip, "speaker": recording.speaker, "seconds": seconds}
        rows.append(row | dict.fromkeys(panel.metrics, math.nan))
        decoded = sounds[recording.clip]
        if isinstance(decoded, InputError):
            failures.append({"clip": recording.clip, "metric": "system", "reason": str(decoded)})
            continue
        values, reasons = panel.score(recording, decoded, sample_rate)
        rows[-1] |= values
        failures += [{"clip": recording.clip, "metric": m, "reason": reason} for m, reason in reasons.items()]
        originals[seen[recording.speaker] % 2].append(panel.features(recording, recording.wav, sample_rate))
        seen[recording.speaker] += 1
        if np.isfinite(decoded).all():
            features.append(panel.features(recording, decoded, sample_rate))
    if not rows:
        raise InputError("there is no recording to judge")
    known: dict[str, Any] = {"system": name, "sample_rate": sample_rate, "clips": len(rows), **(facts or {})}
    known["judges"] = [panel.recogniser.identity, panel.speaker.identity]
    for fact, one, other in (("frechet", features, originals[0] + originals[1]), ("frechet_halves", *originals)):
        known[fact], reason = _distance(one, other)
        if reason:
            failures.append({"clip": "all", "metric": fact, "reason": reason})
    known["frechet_n"] = sum(map(len, features))
    report = Report(pandas.DataFrame(rows, columns=[*ABOUT_CLIP, *panel.metrics]), failures, known)
    known["intervals"] = {metric: interval(report, metric)._asdict() for metric in panel.metrics}
    return report


def _distance(one: list[np.ndarray], other: list[np.ndarray]) -> tuple[float | None, str]:
    if not one or not other:
        return None, "There are too few recordings."
    try:
        return frechet_distance(np.concatenate(one), np.concatenate(other)), ""
    except MetricError as error:
        return None, str(error)


def interval(report: Report, metric: str) -> Interval:
    """Mean over recordings with its 95 % interval: over speakers where two or more are known, else over recordings."""
    return bootstrap(report.clips[metric], groups=groups(report.clips))


def groups(clips: pandas.DataFrame) -> np.ndarray:
    """``[clips]``: whose each is; where nobody or only one is named, each is its own."""
    speakers = clips["speaker"].fillna("").to_numpy()
    return speakers if len(set(speakers)) > 1 else np.arange(len(clips))


def difference(one: Report, other: Report, metric: str = "span_per") -> Interval:
    """one - other, both of the same recordings: what all systems find hard in a recording cancels out."""
    if list(one.clips["clip"]) != list(other.clips["clip"]):
        raise InputError("two reports can be compared where they are of the same recordings; these are not")
    return bootstrap(one.clips[metric] - other.clips[metric], groups=groups(one.clips))


def way(reports: Mapping[str, Report], name: str, metric: str = "span_per") -> Interval:
    """Where a system's mean lies between the ceiling (0) and the floor (1), of the recordings that all three have
    scores for, with a 95 % interval over speakers, drawn together for all three; NaN where ceiling and floor are equal.
    """
    values = np.stack([reports[system].clips[metric] for system in (name, CEILING, FLOOR)])
    speakers = groups(reports[name].clips)
    there = ~np.isnan(values).any(axis=0)
    values, (names, group) = values[:, there], np.unique(speakers[there], return_inverse=True)
    if not there.any():
        return Interval(math.nan, math.nan, math.nan, 0)
    sums = np.stack([np.bincount(group, row) for row in values])  # [3, speakers]
    drawn = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    with np.errstate(divide="ignore", invalid="ignore"):
        places = _place(sums[:, drawn].sum(axis=-1))
        mean = _place(sums.sum(axis=-1))
    ends = np.percentile(places, [2.5, 97.5]) if len(names) > 1 and np.isfinite(places).all() else (math.nan, math.nan)
    return Interval(float(mean) if np.isfinite(mean) else math.nan, *map(float, ends), int(there.sum()))


def _place(sums: np.ndarray) -> np.ndarray:
    """Sums of a system, ceiling and floor ``[3, ...]`` over the same recordings -> where the first lies between."""
    return (sums[0] - sums[1]) / (sums[2] - sums[1])


def table(reports: Mapping[str, Report], panel: Panel) -> str:
    """Plain text: a line per system; means with intervals, failures counted, the Frechet distance, and where the phone
    error rate lies between ceiling and floor."""
    rows = [["system", *map(metric_title, panel.metrics), "Frechet ↓", "ceiling 0, floor 1"]]
    for name, report in reports.items():
        cells = [_cell(interval(report, metric), len(report.clips)) for metric in panel.metrics]
        frechet = report.facts["frechet"]
        place = _cell(way(reports, name), 0, 2) if {CEILING, FLOOR} <= set(reports) else "–"
        rows.append([name, *cells, show(frechet if frechet is None else round(frechet, 2)), place])
    first = next(iter(reports.values()))
    many = first.clips["speaker"].fillna("").nunique()
    silenced = any(report.facts.get("silenced") for report in reports.values())
    lines = [
        *aligned(rows),
        "",
        f"Spans of {len(first.clips)} recordings, {first.clips['seconds'].mean():.2f} s each on average, as decoded; "
        "95 % bootstrap intervals over " + (f"{many} speakers." if many > 1 else "recordings."),
        *([SILENCED] if silenced else []),
        panel.in_words(),
        f"Frechet distance: between two halves of the recordings it is {show(first.facts['frechet_halves'])}; compare "
        "only distances of equally many spans.",
    ]
    return "\n".join(lines)


def _cell(found: Interval, count: int, digits: int = 3) -> str:
    text = f"{found.mean:.{digits}f}"
    if not math.isnan(found.low):
        text += f" [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return text + (f" ({count - found.n} failed)" if found.n < count else "")
