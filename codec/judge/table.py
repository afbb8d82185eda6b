"""One table of all systems that fill in spans of latents: recording, ceiling, floor and models, by decoded audio only.

    panel = Panel.apart_from({item["speaker"] for item in clips})
    recordings, skipped = with_spans(clips, space.sample_rate)
    systems = bounds(space) | {"flow": through(space, lambda known, span, recording: ...)}
    reports = {name: judged(name, recordings, fill, space.sample_rate, panel) for name, fill in systems.items()}
    print(table(reports, panel))

Latents are those of the whole recording: where an encoder's frames see beyond themselves, traces of the span are left
in its neighbours. All systems on one codec have the same, the floor among them; systems on different codecs have not.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor

from codec.errors import InputError
from codec.evaluation import clip_name
from codec.judge.bounds import copy_synthesis, draw_span, frames_of, interpolation
from codec.judge.frechet import frechet_distance
from codec.judge.panel import Panel, Recording
from codec.metrics.base import MetricError
from codec.metrics.intervals import Interval, bootstrap
from codec.report import Report, aligned, show
from codec.report_check import ABOUT_CLIP

RECORDING, CEILING, FLOOR = "recording", "copy synthesis (ceiling)", "interpolation (floor)"

Fill = Callable[[Recording], np.ndarray]  # -> decoded [T], the span filled in
System = Callable[[Tensor, Tensor, Recording], Tensor]  # latents [1, C, F], span [1, F] bool -> latents


def with_spans(
    clips: Iterable[Mapping[str, Any]], sample_rate: int, seed: int = 0
) -> tuple[list[Recording], list[tuple[str, str]]]:
    """Held-out items at ``sample_rate`` Hz -> recordings with a span each, and (file, reason) of those without room.

    The same clips and seed give the same spans, in seconds, for every codec.
    """
    found, skipped, taken = [], [], set()
    for number, item in enumerate(clips):
        wav, name = item["wav"][0].numpy(), clip_name(item, number, taken)
        taken.add(name)
        try:
            span = draw_span(item["phones"], len(wav) / sample_rate, seed, number)
        except InputError as error:
            skipped.append((name, str(error)))
        else:
            found.append(Recording(name, item["speaker"], wav, item["phones"], span))
    return found, skipped


def through(space: Any, system: System) -> Fill:
    """A system on latents as one on audio: encode, fill in, decode.

    Args:
        space: with ``encode(wav [1, 1, T]) -> [1, C, F]``, ``decode(x, length=T) -> [1, 1, T]`` and ``frame_rate``.

    The result raises ValueError if the system changes what is known.
    """

    @torch.inference_mode()
    def fill(recording: Recording) -> np.ndarray:
        wav = torch.from_numpy(recording.wav)[None, None]
        known = space.encode(wav)
        span = frames_of(recording.span, known.shape[-1], space.frame_rate)[None].to(known.device)
        latents = system(known, span, recording)
        if latents.shape != known.shape or not torch.equal(latents[0][:, ~span[0]], known[0][:, ~span[0]]):
            raise ValueError("the system changed latents outside of the span")
        return space.decode(latents, length=wav.shape[-1])[0, 0].float().cpu().numpy()

    return fill


def bounds(space: Any) -> dict[str, Fill]:
    """What stands in every table: the recording itself, which shows the errors of the judges, ceiling and floor."""
    return {
        RECORDING: lambda recording: recording.wav,
        CEILING: through(space, lambda known, span, _: copy_synthesis(known, span)),
        FLOOR: through(space, lambda known, span, _: interpolation(known, span)),
    }


def judged(
    name: str,
    recordings: Iterable[Recording],
    fill: Fill,
    sample_rate: int,
    panel: Panel,
    facts: Mapping[str, Any] | None = None,
) -> Report:
    """The report of one system: every score is of the span, as decoded.

    Facts are the Frechet distance of its spans to those of the recordings (``frechet``), what it is between every
    second and every other recording (``frechet_halves``), and of how many vectors (``frechet_n``). A recording on which
    the system raises is listed as a failure and has no scores.

    Raises:
        InputError: if there is no recording, or a system returns another length.
    """
    rows, failures, features, originals = [], [], [], []
    for recording in recordings:
        seconds = recording.span[1] - recording.span[0]
        row = {"clip": recording.clip, "speaker": recording.speaker, "seconds": seconds}
        rows.append(row | dict.fromkeys(panel.metrics, math.nan))
        try:
            decoded = fill(recording)
        except Exception as error:  # one odd clip must not end an evaluation of an hour
            failures.append({"clip": recording.clip, "metric": "system", "reason": f"{type(error).__name__}: {error}"})
            continue
        values, reasons = panel.score(recording, decoded, sample_rate)
        rows[-1] |= values
        failures += [{"clip": recording.clip, "metric": m, "reason": reason} for m, reason in reasons.items()]
        originals.append(panel.features(recording, recording.wav, sample_rate))
        if np.isfinite(decoded).all():
            features.append(panel.features(recording, decoded, sample_rate))
    if not rows:
        raise InputError("there is no recording to judge")
    known: dict[str, Any] = {"system": name, "sample_rate": sample_rate, "clips": len(rows), **(facts or {})}
    for fact, one, other in (
        ("frechet", features, originals),
        ("frechet_halves", originals[::2], originals[1::2]),
    ):
        known[fact], reason = _distance(one, other)
        if reason:
            failures.append({"clip": "all", "metric": fact, "reason": reason})
    known["frechet_n"] = sum(map(len, features))
    return Report(pandas.DataFrame(rows, columns=[*ABOUT_CLIP, *panel.metrics]), failures, known)


def _distance(one: list[np.ndarray], other: list[np.ndarray]) -> tuple[float | None, str]:
    if not one or not other:
        return None, "There are too few recordings."
    try:
        return frechet_distance(np.concatenate(one), np.concatenate(other)), ""
    except MetricError as error:
        return None, str(error)


def interval(report: Report, metric: str) -> Interval:
    """Mean over recordings with its 95 % interval: over speakers where two or more are known, else over recordings."""
    speakers = report.clips["speaker"].fillna("")
    return bootstrap(report.clips[metric], groups=speakers if speakers.nunique() > 1 else None)


def way(reports: Mapping[str, Report], name: str, metric: str = "span_per") -> float:
    """Where a system's mean lies between the ceiling (0) and the floor (1); NaN where the two are equal."""
    value, ceiling, floor = (interval(reports[system], metric).mean for system in (name, CEILING, FLOOR))
    return (value - ceiling) / (floor - ceiling) if floor != ceiling else math.nan


def table(reports: Mapping[str, Report], panel: Panel) -> str:
    """Plain text: a line per system; means with intervals, failures counted, the Frechet distance, and where the phone
    error rate lies between ceiling and floor."""
    arrows = {True: "↑", False: "↓"}
    titles = [
        f"{metric.name}{f' ({metric.unit})' if metric.unit else ''} {arrows[metric.higher_is_better]}"
        for metric in panel.metrics.values()
    ]
    rows = [["system", *titles, "Frechet ↓", "ceiling 0, floor 1"]]
    for name, report in reports.items():
        cells = [_cell(interval(report, metric), len(report.clips)) for metric in panel.metrics]
        frechet = report.facts["frechet"]
        place = f"{way(reports, name):.2f}" if {CEILING, FLOOR} <= set(reports) else "–"
        rows.append([name, *cells, show(frechet if frechet is None else round(frechet, 2)), place])
    first, recogniser, speaker = next(iter(reports.values())), panel.recogniser, panel.speaker
    many = first.clips["speaker"].fillna("").nunique()
    lines = [
        *aligned(rows),
        "",
        f"Spans of {len(first.clips)} recordings, as decoded; 95 % bootstrap intervals over "
        + (f"{many} speakers." if many > 1 else "recordings."),
        f"Phones: {recogniser.identity}, {100 * recogniser.error_rate:.1f} % errors on its own held-out voices. "
        f"Speakers: {speaker.identity}, equal error rate {100 * speaker.equal_error_rate:.1f} %.",
        f"Frechet distance: between two halves of the recordings it is {show(first.facts['frechet_halves'])}; compare "
        "only distances of equally many spans.",
    ]
    return "\n".join(lines)


def _cell(found: Interval, count: int) -> str:
    text = f"{found.mean:.3f}"
    if not math.isnan(found.low):
        text += f" [{found.low:.3f}, {found.high:.3f}]"
    return text + (f" ({count - found.n} failed)" if found.n < count else "")
