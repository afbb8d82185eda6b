"""A blind listening test after ITU-R BS.1534-3 (MUSHRA) as one HTML file; :mod:`.ratings` evaluates its results."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from codec.evaluation.baselines.anchors import LowPass
from codec.evaluation.html.base import IDENTITY, LOW_PASS, MOST_CONDITIONS, PageError, SystemResult
from codec.evaluation.html.ratings import ANCHOR, FORMAT, REFERENCE
from codec.evaluation.html.render import MB, embedded_json, render
from codec.evaluation.html.sound import Clip, Wave, fill, int16, read_audio
from codec.evaluation.report import json_values
from codec.utils.atomic import write_atomic

CUTOFF = 3500.0  # Hz, of the anchor


def write_listening_test(
    path: str | Path,
    results: Sequence[SystemResult],
    title: str,
    clips: int = 12,
    seed: int = 0,
    limit_mb: float = 30.0,
) -> Path:
    """Write a MUSHRA-like test (after ITU-R BS.1534-3) as one self-contained HTML file; returns its path.

    A trial is one clip: the open reference and, in an order that depends on the listener, the hidden reference, the low
    anchor (3.5 kHz) and every system, each rated from 0 to 100. The mid anchor (7 kHz) is omitted: at 16 kHz it is
    almost the reference. Names of systems are not displayed, but the source of the page contains them encoded.

    ``results``: at most ten, with audio of the same clips. ``identity`` is omitted (it is the hidden reference); a 3.5
    kHz ``low_pass``, or a system named like the anchor, replaces the anchor. ``clips`` are drawn by ``seed`` from those
    that every system has audio of; those beyond ``limit_mb`` (10^6 bytes) are omitted.
    """
    results = [result for result in results if result.name != IDENTITY]
    add_anchor = not any(map(_is_anchor, results))
    _check(results, add_anchor)
    common = [clip for clip in results[0].report.audio if all(clip in result.report.audio for result in results)]
    if not common:
        raise PageError("The systems have sound of no clip in common.")
    random = np.random.default_rng(seed)
    chosen = [common[i] for i in random.permutation(len(common))[:clips]]
    systems = [REFERENCE, *([ANCHOR] if add_anchor else []), *(result.name for result in results)]
    speakers = results[0].report.clips.set_index("clip")["speaker"]
    speakers = dict(zip(speakers.index, json_values(speakers.tolist()), strict=True))
    orders = {clip: random.permutation(len(systems)) for clip in chosen}  # so that a position reveals nothing

    def page(trials: list[tuple[Clip, list[str]]], coding: str) -> bytes:
        key = [(clip.name, [systems[i] for i in orders[clip.name]], speakers[clip.name]) for clip, _ in trials]
        data = {
            "format": FORMAT,
            "title": title,
            "test": hashlib.sha256(json.dumps([FORMAT, title, seed, key]).encode()).hexdigest()[:16],
            "seed": seed,
            "key": base64.b64encode(json.dumps(key).encode()).decode(),
            "trials": [
                {"reference": list(orders[clip.name]).index(0), "sounds": [uris[i] for i in orders[clip.name]]}
                for clip, uris in trials
            ],
        }
        values = {"title": title, "coding": coding, "count": len(trials), "data": embedded_json(data)}
        return render("listening.html", ["player.js", "listening.js"], **values).encode()

    limit = int(limit_mb * MB)
    coding, fitting = fill(limit - len(page([], "")), chosen, lambda clip: _load(results, clip, add_anchor))
    while fitting and len(page(fitting, coding)) >= limit:
        fitting.pop()
    if not fitting:
        raise PageError(f"No clip finds room in {limit_mb:g} MB.")
    write_atomic(path, page(fitting, coding))
    return path


def anchor(wave: Wave) -> Wave:
    """Low anchor of BS.1534-3: 3.5 kHz low-pass, 60 dB down from 4 kHz (required: 25 dB, and 50 dB from 4.5 kHz)."""
    wav, rate = wave
    try:
        low = LowPass(CUTOFF).reconstruct(torch.from_numpy(wav / 32768)[None, None], rate)
    except ValueError as error:
        raise PageError(f"A listening test's anchor needs sound of 8000 Hz or more; this has {rate}.") from error
    return int16(low.reshape(-1).numpy()), rate


def _is_anchor(result: SystemResult) -> bool:
    cutoff = result.report.facts.get("cutoff_hz", CUTOFF)
    return result.name == ANCHOR or (result.name == LOW_PASS and cutoff == CUTOFF)


def _check(results: Sequence[SystemResult], add_anchor: bool) -> None:
    names = [result.name for result in results]
    if len(set(names)) < len(names) or REFERENCE in names:
        raise PageError(f"Systems of a listening test need unique names other than {REFERENCE}.")
    if not names or len(names) + 1 + add_anchor > MOST_CONDITIONS:
        raise PageError(f"A listening test has 1 to {MOST_CONDITIONS - 1 - add_anchor} systems, not {len(names)}.")


def _load(results: Sequence[SystemResult], clip: str, add_anchor: bool) -> Clip:
    """Reference, anchor if it is added here, and systems, in this order."""
    first = max(results, key=lambda result: result.report.facts.get("sample_rate") or 0)
    reference = read_audio(first, clip, "reference")
    anchors = [anchor(reference)] if add_anchor else []
    return Clip(clip, [reference, *anchors, *(read_audio(result, clip, "decoded") for result in results)], [])
