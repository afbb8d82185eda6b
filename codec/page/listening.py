"""A blind listening test after ITU-R BS.1534-3 as one HTML file; `codec.page.ratings` reads what comes out of it."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.signal

from codec.page.base import Entry
from codec.page.html import MB, embedded, render, save
from codec.page.ratings import ANCHOR, FORMAT, REFERENCE
from codec.page.sound import Clip, Wave, fill, int16, read_named

MOST = 12  # conditions of a trial, BS.1534-3


def write_listening_test(
    path: str | Path, entries: Sequence[Entry], title: str, clips: int = 12, seed: int = 0, limit_mb: float = 30.0
) -> Path:
    """Write a MUSHRA-like test to ``path``, an HTML file that needs no other and no network.

    A trial is a clip: the open reference, and in an order that depends on the listener the hidden reference, an anchor
    (the reference below 3.5 kHz) and every system, each to be rated from 0 to 100. The page shows no system's name; its
    source has them encoded, for the results. The standard's second anchor (7 kHz) is left out: at 16 kHz it is next to
    the reference. The same arguments give the same bytes.

    Args:
        entries: at most ten, with sound of the same clips. One that is named like the anchor replaces it.
        clips: so many of the clips that every system has sound of, drawn by ``seed``.
        limit_mb: as for a report; clips that find no room are left out.

    Returns:
        the path.

    Raises:
        ValueError: if there is no system or are too many, names clash, the systems share no clip, or none finds room.
        ReportError: if a report names a sound file that is not there.
    """
    names = [entry.name for entry in entries]
    made = ANCHOR not in names
    if len(set(names)) < len(names) or REFERENCE in names:
        raise ValueError(f"Systems of a listening test need names of their own, none of them {REFERENCE}.")
    if not names or len(names) + 1 + made > MOST:
        raise ValueError(f"A listening test has 1 to {MOST - 1 - made} systems, not {len(names)}.")
    common = [clip for clip in entries[0].report.audio if all(clip in entry.report.audio for entry in entries)]
    if not common:
        raise ValueError("The systems have sound of no clip in common.")
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
        raise ValueError(f"No clip finds room in {limit_mb:g} MB.")
    return save(path, text)


def lowpass(wave: Wave) -> Wave:
    """The anchor of BS.1534-3: passes 3.5 kHz, 60 dB down from 4 kHz on (it asks for 25 there and 50 from 4.5 kHz).

    Raises ValueError below 7.5 kHz, where there is nothing to take away.
    """
    wav, rate = wave
    taps, beta = scipy.signal.kaiserord(60, 500 / (rate / 2))
    window = scipy.signal.firwin(taps | 1, 3750, window=("kaiser", beta), fs=rate)  # odd: no delay in mode "same"
    padded = np.pad(wav / 32768, len(window) // 2)
    return int16(scipy.signal.oaconvolve(padded, window, mode="valid")), rate


def _waves(entries: Sequence[Entry], clip: str, anchor: bool) -> list[Wave]:
    """The reference, the anchor if it is made here, and the systems in their order."""
    first = max(entries, key=lambda entry: entry.report.facts.get("sample_rate") or 0)
    files = [(first, "reference"), *((entry, "decoded") for entry in entries)]
    waves = []
    for entry, role in files:
        waves.append(read_named(entry, entry.report.audio[clip][role]))
    return [waves[0], *([lowpass(waves[0])] if anchor else []), *waves[1:]]
