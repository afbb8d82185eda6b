"""Crops that are longer than a recording: filled with more speech of its speaker, never with silence."""

import itertools
from collections.abc import Iterable

import torch

FADE = 0.005  # seconds, at both ends of each piece


def filled(item: dict, further: Iterable[dict], samples: int, sample_rate: int) -> dict:
    """`item` lengthened to `samples` samples by the pieces `further` of its speaker, then by repeating all of them.

    Phones keep their times in each piece; they are unknown if those of a piece are. `padding` is the share of the
    samples that repeat others.
    """
    pieces, length = [item], item["wav"].shape[-1]
    if length < samples:
        for piece in further:
            pieces.append(piece)
            length += piece["wav"].shape[-1]
            if length >= samples:
                break
    padding = max(0.0, 1 - length / samples)
    if len(pieces) == 1 and not padding:
        return item | {"padding": 0.0}
    wav, phones, at = torch.zeros(1, samples), [], 0
    for piece in itertools.cycle(pieces):
        part = _faded(piece["wav"], round(FADE * sample_rate))[:, : samples - at]
        wav[:, at : at + part.shape[-1]] = part
        seconds = at / sample_rate
        phones += [(s, seconds + t) for s, t in piece["phones"] if (seconds + t) * sample_rate < samples]
        at += part.shape[-1]
        if at == samples:
            break
    known = all(piece["phones"] for piece in pieces)
    text = " ".join(filter(None, (piece["text"] for piece in pieces)))
    return item | {"wav": wav, "phones": phones if known else [], "text": text, "padding": padding}


def _faded(wav: torch.Tensor, samples: int) -> torch.Tensor:
    """A copy of wav [1, T] that rises and falls within `samples`, or half of it."""
    samples = min(samples, wav.shape[-1] // 2)
    ramp = torch.arange(1, samples + 1) / (samples + 1)
    wav = wav.clone()
    wav[:, :samples] *= ramp
    wav[:, wav.shape[-1] - samples :] *= ramp.flip(0)
    return wav
