"""Reports of systems that inpaint spans of latents, by decoded audio only, and their table."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas

from codec.evaluation.judges.frechet import frechet_distance
from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.intervals import Interval, by_speaker, mean_interval, ratio
from codec.evaluation.metrics.table import SPANS
from codec.evaluation.report import Report, format_fact, metric_title, text_table
from codec.evaluation.report_schema import CLIP_COLUMNS
from codec.flow.evaluation.panel import Panel
from codec.flow.evaluation.spans import Recording
from codec.utils.errors import InputError

RECORDING, CEILING, FLOOR = "recording", "copy synthesis (ceiling)", "interpolation (floor)"
SILENCED = "What is known was encoded with silence in the span; between it the ceiling has the true latents."


def span_report(
    name: str,
    recordings: Iterable[Recording],
    decoded: Mapping[str, np.ndarray | InputError],
    sample_rate: int,
    panel: Panel,
    facts: Mapping[str, Any] | None = None,
) -> Report:
    """Report of one inpainting system; every score is of the span, as decoded.

    Facts are the Frechet distance of its spans to those of the recordings (``frechet``), that between halves of the
    recordings, each with half of every speaker's (``frechet_halves``), the number of vectors (``frechet_n``), means
    with intervals over speakers (``intervals``), and the identities of the judges. ``decoded`` has, by clip, audio
    ``[T]``, as long as the recording, or the reason of a failure. Raises InputError if there is no recording, or a
    length differs.
    """
    rows, failures, features = [], [], []
    originals: list[list[np.ndarray]] = [[], []]  # halves
    counts: Counter[str] = Counter()
    for recording in recordings:
        seconds = recording.span[1] - recording.span[0]
        rows.append({"clip": recording.clip, "speaker": recording.speaker, "seconds": seconds})
        rows[-1] |= dict.fromkeys(SPANS, math.nan)
        wav = decoded[recording.clip]
        if isinstance(wav, InputError):
            failures.append({"clip": recording.clip, "metric": "system", "reason": str(wav)})
            continue
        values, reasons = panel.score(recording, wav, sample_rate)
        rows[-1] |= values
        failures += [{"clip": recording.clip, "metric": m, "reason": reason} for m, reason in reasons.items()]
        original = panel.recogniser.features(recording.wav, sample_rate, recording.span)
        originals[counts[recording.speaker] % 2].append(original)
        counts[recording.speaker] += 1
        if np.isfinite(wav).all():
            features.append(panel.recogniser.features(wav, sample_rate, recording.span))
    if not rows:
        raise InputError("there is no recording to judge")
    about: dict[str, Any] = {"system": name, "sample_rate": sample_rate, "clips": len(rows), **(facts or {})}
    about["judges"] = [panel.recogniser.identity, panel.speaker.identity]
    for fact, one, other in (("frechet", features, originals[0] + originals[1]), ("frechet_halves", *originals)):
        about[fact], reason = _distance(one, other)
        if reason:
            failures.append({"clip": "all", "metric": fact, "reason": reason})
    about["frechet_n"] = sum(map(len, features))
    report = Report(pandas.DataFrame(rows, columns=[*CLIP_COLUMNS, *SPANS]), failures, about)
    about["intervals"] = {metric: interval(report, metric)._asdict() for metric in SPANS}
    return report


def _distance(one: list[np.ndarray], other: list[np.ndarray]) -> tuple[float | None, str]:
    if not one or not other:
        return None, "There are too few recordings."
    try:
        return frechet_distance(np.concatenate(one), np.concatenate(other)), ""
    except MetricError as error:
        return None, str(error)


def interval(report: Report, metric: str) -> Interval:
    """Mean over recordings with its 95 % interval over speakers, or over recordings if fewer than two are known."""
    return mean_interval(report.clips[metric], by_speaker(report.clips["speaker"])[0])


def relative_to_bounds(reports: Mapping[str, Report], name: str, metric: str = "span_per") -> Interval:
    """Place of a system's mean between ceiling (0) and floor (1), with a 95 % interval over speakers.

    Over the recordings that all three have scores for. NaN if ceiling and floor are equal, and no interval if they are
    not clearly apart.
    """
    own, ceiling, floor = (reports[system].clips[metric].to_numpy() for system in (name, CEILING, FLOOR))
    return ratio(own - ceiling, floor - ceiling, by_speaker(reports[name].clips["speaker"])[0])


def table(reports: Mapping[str, Report], panel: Panel) -> str:
    """Text table with a line per system: means with intervals, failures, Frechet distance, place between the bounds."""
    rows = [["system", *map(metric_title, SPANS), "Frechet ↓", "ceiling 0, floor 1"]]
    for name, report in reports.items():
        cells = [_cell(interval(report, metric), len(report.clips)) for metric in SPANS]
        frechet = report.facts["frechet"]
        place = _cell(relative_to_bounds(reports, name), 0, 2) if {CEILING, FLOOR} <= set(reports) else "–"
        rows.append([name, *cells, format_fact(frechet if frechet is None else round(frechet, 2)), place])
    first = next(iter(reports.values()))
    silenced = any(report.facts.get("silenced") for report in reports.values())
    lines = [
        *text_table(rows),
        "",
        f"Spans of {len(first.clips)} recordings, {first.clips['seconds'].mean():.2f} s each on average, as decoded; "
        f"95 % intervals over {by_speaker(first.clips['speaker'])[1]}.",
        *([SILENCED] if silenced else []),
        panel.summary(),
        f"Frechet distance: between two halves of the recordings it is {format_fact(first.facts['frechet_halves'])}; "
        "compare only distances of equally many spans.",
    ]
    return "\n".join(lines)


def _cell(found: Interval, count: int, digits: int = 3) -> str:
    text = f"{found.mean:.{digits}f}"
    if not math.isnan(found.low):
        text += f" [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return text + (f" ({count - found.n} failed)" if found.n < count else "")
