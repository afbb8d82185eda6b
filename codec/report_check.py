"""What a report's JSON file must hold before anything is made of it: it may be somebody else's."""

import math
from pathlib import PurePath
from typing import Any

MOST_CLIPS, MOST_METRICS = 1_000_000, 200
NUMBERS = ("sample_rate", "step", "n_q", "kbps", "entropy_kbps", "frame_rate_hz", "latency_ms", "parameters")
NUMBERS += ("gflop_encode", "gflop_decode")  # facts that are numbers, or None
LISTS = ("codebook_usage", "codebook_perplexity")  # facts that are lists of numbers


def check_content(content: dict[str, Any]) -> None:
    """Raise ValueError, with what is wrong, for anything that ``Report.write`` does not write."""
    for part, kind in (("clips", list), ("failures", list), ("facts", dict), ("audio", dict)):
        if not isinstance(content.get(part, {} if part == "audio" else None), kind):
            raise ValueError(f"its {part} are no {kind.__name__}")
    _check_clips(content["clips"], content.get("metrics", list(content.get("summary", {}))))
    for failure in content["failures"]:
        if not isinstance(failure, dict) or not all(
            isinstance(failure.get(k), str) for k in ("clip", "metric", "reason")
        ):
            raise ValueError("a failure is not clip, metric and reason")
    for name, value in content["facts"].items():
        if name in NUMBERS and value is not None and not is_number(value):
            raise ValueError(f"{name} is no number")
        if name in LISTS and value is not None and not (isinstance(value, list) and all(map(is_number, value))):
            raise ValueError(f"{name} is no list of numbers")
    if len(content["facts"].get(LISTS[0]) or ()) != len(content["facts"].get(LISTS[1]) or ()):
        raise ValueError(f"{LISTS[0]} and {LISTS[1]} are of different lengths")
    for clip, files in content.get("audio", {}).items():
        for role in ("reference", "decoded"):
            _check_place(clip, files.get(role) if isinstance(files, dict) else None)


def is_number(value: Any) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and abs(value) <= 1e300 and math.isfinite(value)


def _check_clips(clips: list[Any], metrics: Any) -> None:
    if not isinstance(metrics, list) or len(metrics) > MOST_METRICS or not all(isinstance(m, str) for m in metrics):
        raise ValueError("its metrics are no list of names")
    if len(clips) > MOST_CLIPS:
        raise ValueError(f"it has more than {MOST_CLIPS:,} clips")
    seen = set()
    for row in clips:
        if not isinstance(row, dict) or not isinstance(row.get("clip"), str) or row["clip"] in seen:
            raise ValueError("a clip has no name of its own")
        seen.add(row["clip"])
        if not isinstance(row.get("speaker", ""), str | None) or not is_number(row.get("seconds")):
            raise ValueError(f"the clip {row['clip'][:100]!r} has no speaker and length in seconds")
        for name in metrics:
            if row.get(name) is not None and not is_number(row[name]):
                raise ValueError(f"{name[:100]} of the clip {row['clip'][:100]!r} is no number")


def _check_place(clip: str, name: Any) -> None:
    """A sound is a file in the folder of the report or below, never one elsewhere."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise ValueError(f"the sound of {clip[:100]!r} is no file name")
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ValueError(f"the sound of {clip[:100]!r} is {name[:200]!r}, which is not in the report's own folder")
