"""A blind listening test after ITU-R BS.1534-3 as one HTML file; `codec.evaluation.html.ratings` reads what comes out
of it."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from codec.evaluation.baselines.anchors import LowPass
from codec.evaluation.html.base import Entry, PageError
from codec.evaluation.html.html import MB, embedded, render, save
from codec.evaluation.html.ratings import ANCHOR, FORMAT, REFERENCE
from codec.evaluation.html.sound import Clip, Wave, fill, int16, read

MOST = 12  # conditions of a trial, BS.1534-3
CUTOFF = 3500.0  # Hz, of the anchor
SAME = "identity"  # the baseline that gives back what it gets: the hidden reference by another name
LOW_PASS = "low_pass"  # the baseline that is the anchor by another name


def rated(names: Sequence[str]) -> list[str]:
    """The systems among these for which a trial must have room besides its reference and its anchor."""
    return [name for name in names if name not in (SAME, LOW_PASS)]


def write_listening_test(
    path: str | Path, entries: Sequence[Entry], title: str, clips: int = 12, seed: int = 0, limit_mb: float = 30.0
) -> Path:
    """Write a MUSHRA-like test to ``path``, an HTML file that needs no other and no network.

    A trial is a clip: the open reference, and in an order that depends on the listener the hidden reference, an anchor
    (the reference below 3.5 kHz) and every system, each to be rated from 0 to 100. The page shows no system's name; its
    source has them encoded, for the results. The standard's second anchor (7 kHz) is left out: at 16 kHz it is next to
    the reference. The same arguments give the same bytes.

    Args:
        entries: at most ten, with sound of the same clips. ``identity`` is left out, since it is the hidden reference,
            and counts as none; ``low_pass`` at 3.5 kHz, or one that is named like the anchor, stands for it, so that
            none is made here and there is room for eleven.
        clips: so many of the clips that every system has sound of, drawn by ``seed``.
        limit_mb: as for a report; clips that find no room are left out.

    Returns:
        the path.

    Raises:
        PageError: if there is no system or are too many, names clash, the systems share no clip, none finds room, or
            sound is below 8 kHz, where there is nothing to take away for an anchor.
        ReportError: if a report names a sound file that cannot be read.
    """
    entries = [entry for entry in entries if entry.name != SAME]
    names = [entry.name for entry in entries]
    made = not any(_is_anchor(entry) for entry in entries)
    if len(set(names)) < len(names) or REFERENCE in names:
        raise PageError(f"Systems of a listening test need names of their own, none of them {REFERENCE}.")
    if not names or len(names) + 1 + made > MOST:
        raise PageError(f"A listening test has 1 to {MOST - 1 - made} systems, not {len(names)}.")
    common = [clip for clip in entries[0].report.audio if all(clip in entry.report.audio for entry in entries)]
    if not common:
        raise PageError("The systems have sound of no clip in common.")
    random = np.random.default_rng(seed)
    chosen = [common[i] for i in random.permutation(len(common))[:clips]]

    systems = [REFERENCE, *([ANCHOR] if made else []), *names]
    orders = {clip: random.permutation(len(systems)) for clip in chosen}  # so that a place says nothing

    def page(kept: list[tuple[Clip, list[str]]], coding: str) -> str:
        trials = []
        for clip, sounds in kept:
            hidden = [sounds[i] for i in orders[clip.name]]
            trials.append({"reference": list(orders[clip.name]).index(0), "sounds": hidden})
        key = {clip.name: [systems[i] for i in orders[clip.name]] for clip, _ in kept}
        hidden = base64.b64encode(json.dumps(list(key.items())).encode()).decode()
        test = hashlib.sha256(json.dumps([FORMAT, title, seed, list(key.items())]).encode()).hexdigest()[:16]
        data = {"format": FORMAT, "title": title, "test": test, "seed": seed, "key": hidden, "trials": trials}
        scripts = ["player.js", "listening.js"]
        return render("listening.html", scripts, title=title, coding=coding, count=len(kept), data=embedded(data))

    def load(clip: str) -> Clip:
        return Clip(clip, _waves(entries, clip, made), [])

    limit = int(limit_mb * MB)
    coding, kept = fill(limit - len(page([], "").encode()), chosen, load)
    text = page(kept, coding.name)
    while kept and len(text.encode()) >= limit:
        kept.pop()
        text = page(kept, coding.name)
    if not kept:
        raise PageError(f"No clip finds room in {limit_mb:g} MB.")
    return save(path, text)


def lowpass(wave: Wave) -> Wave:
    """The anchor of BS.1534-3: passes 3.5 kHz, 60 dB down from 4 kHz on (it asks for 25 there and 50 from 4.5 kHz).

    Raises PageError below 8 kHz, where there is nothing to take away.
    """
    wav, rate = wave
    try:
        low = LowPass(CUTOFF).reconstruct(torch.from_numpy(wav / 32768)[None, None], rate)
    except ValueError as error:
        raise PageError(f"A listening test's anchor needs sound of 8000 Hz or more; this has {rate}.") from error
    return int16(low.reshape(-1).numpy()), rate


def _is_anchor(entry: Entry) -> bool:
    return entry.name == ANCHOR or (entry.name == LOW_PASS and entry.report.facts.get("cutoff_hz", CUTOFF) == CUTOFF)


def _waves(entries: Sequence[Entry], clip: str, anchor: bool) -> list[Wave]:
    """The reference, the anchor if it is made here, and the systems in their order."""
    first = max(entries, key=lambda entry: entry.report.facts.get("sample_rate") or 0)
    files = [(first, "reference"), *((entry, "decoded") for entry in entries)]
    waves = [read(entry, clip, role) for entry, role in files]
    return [waves[0], *([lowpass(waves[0])] if anchor else []), *waves[1:]]
