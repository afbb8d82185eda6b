"""What a report file may hold: it may come from a stranger, and what it names ends up on pages."""

import re
from pathlib import PureWindowsPath
from typing import Any

ABOUT_CLIP = ("clip", "speaker", "seconds")  # every other column of `Report.clips` is a metric
ROLES = ("reference", "decoded")  # of the two files of a clip that can be heard
NUMBERS = ("sample_rate", "kbps", "n_q")  # facts that are numbers where they are known
TEXTS = ("system", "run")  # facts that are text where they are known


def check_report(content: Any) -> list[str]:
    """What JSON holds -> the names of its metrics; raises ValueError, a clause that says why it is no report."""
    _need(isinstance(content, dict), "it is not a JSON object")
    listed = content.get("metrics", content.get("summary"))  # older versions have the latter alone
    metrics = list(listed) if isinstance(listed, list | dict) else None
    _need(metrics is not None, "it does not name its metrics")
    named = all(isinstance(name, str) and re.fullmatch("[A-Za-z0-9_]+", name) for name in metrics)
    _need(named and not set(metrics) & set(ABOUT_CLIP), "a metric has a name that is none")
    _need(len(set(metrics)) == len(metrics), "a metric is named twice")

    clips = content.get("clips")
    _need(isinstance(clips, list) and clips and all(isinstance(row, dict) for row in clips), "it has no table of clips")
    for row in clips:
        _need(isinstance(row.get("clip"), str), "a clip has no name")
        known = set(row) >= {*ABOUT_CLIP, *metrics}
        _need(known, f"the clip {row['clip']!r} lacks its speaker, its length or a metric")
        _need(isinstance(row["speaker"], str | int | None), f"the speaker of {row['clip']!r} is no text")
        _need(_is_number(row["seconds"]), f"the length of {row['clip']!r} is no number")
        scored = all(row[name] is None or _is_number(row[name]) for name in metrics)
        _need(scored, f"a score of {row['clip']!r} is no number")
    names = {row["clip"] for row in clips}
    _need(len(names) == len(clips), "a clip comes twice")

    failures = content.get("failures")
    _need(isinstance(failures, list), "it does not list its failures")
    for failure in failures:
        fine = isinstance(failure, dict) and all(isinstance(failure.get(k), str) for k in ("clip", "metric", "reason"))
        _need(fine, "a failure is not text for a clip, a metric and a reason")
    _check_facts(content.get("facts"))
    _check_audio(content.get("audio", {}), names)
    return metrics


def _check_facts(facts: Any) -> None:
    _need(isinstance(facts, dict), "it has no facts")
    for name in NUMBERS:
        _need(facts.get(name) is None or _is_number(facts[name]), f"its {name} is no number")
    for name in TEXTS:
        _need(isinstance(facts.get(name), str | None), f"its {name} is no text")
    books = [facts.get(name) for name in ("codebook_usage", "codebook_perplexity")]
    fine = all(book is None or (isinstance(book, list) and all(map(_is_number, book))) for book in books)
    _need(fine, "its codebooks' usage or perplexity is no list of numbers")
    _need(None in books or len(books[0]) == len(books[1]), "its codebooks have a usage or a perplexity too few")


def _check_audio(audio: Any, clips: set[str]) -> None:
    _need(isinstance(audio, dict), "it does not say which clips can be heard")
    for clip, files in audio.items():
        _need(clip in clips, f"it has sound of {clip!r}, which is no clip of it")
        fine = isinstance(files, dict) and all(isinstance(files.get(role), str) for role in ROLES)
        _need(fine, f"the sound of {clip!r} is not a reference and a decoded file")
        for role in ROLES:
            path = PureWindowsPath(files[role])  # of either system: a report may come from the other one
            inside = path.parts and not path.anchor and ".." not in path.parts and files[role].isprintable()
            _need(inside, f"the sound of {clip!r} is to be read from outside of its folder")


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold, and neither a truth value nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _need(true: Any, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)
