"""Phone and speaker information in a codec's latents, by probes and ABX: ``content`` of a ``LatentCorpus``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codec.evaluation.judges.speaker import discriminants, equal_error_rate
from codec.evaluation.probing.abx import abx
from codec.evaluation.probing.probes import probe
from codec.utils.errors import InputError

HIDDEN = 256  # width of the MLP
DIRECTIONS = 20  # in which voices differ, at most


def content(corpus: Any, split: str = "test", seed: int = 0) -> dict[str, Any]:
    """Phone probes, ABX and speaker verification on recordings of ``split``, by speakers that no probe was trained on.

    ``corpus`` is one of latents (codec/latents/latent_corpus.py), with phones and speakers. The result has plain
    values, intervals as dicts of mean, low, high and n: ``accuracy`` and ``error_rate`` of the ``linear`` and the
    ``mlp`` probe, and ``chance`` (:func:`probe`); ``abx_within`` and ``abx_across`` speakers (:func:`abx`), None if
    nothing can be compared; ``speaker`` (:func:`speaker_error`); the kind of latents and the numbers of recordings.
    Raises InputError if there are no phones, no speakers, or the same speakers in both parts.
    """
    train, test = list(corpus.train), list(corpus.clips(split))
    linear, mlp = (probe(corpus, split, hidden, seed=seed) for hidden in (None, HIDDEN))
    result: dict[str, Any] = {"chance": linear.chance}
    for name, found in (("linear", linear), ("mlp", mlp)):
        result[name] = {"accuracy": found.accuracy._asdict(), "error_rate": found.error_rate._asdict()}
    for name, across in (("abx_within", False), ("abx_across", True)):
        try:
            result[name] = abx(test, corpus.frame_rate, corpus.sample_rate, across, seed)._asdict()
        except InputError:  # too few recordings
            result[name] = None
    about = {name: getattr(corpus, name) for name in ("frame_rate", "kind", "fingerprint")}
    counts = {"train": len(train), "test": len(test), "speakers": len({item["speaker"] for item in test})}
    return result | about | counts | {"channels": corpus.dim, "speaker": speaker_error(train, test)}


def speaker_error(train: Sequence[dict], test: Sequence[dict]) -> float:
    """Equal error rate of speaker verification by latents, in [0, 1], over pairs of recordings by held-out speakers.

    Chance is 0.5. A recording is the mean and standard deviation over time of each channel, projected to at most 20
    discriminants of the training speakers (:func:`codec.evaluation.judges.speaker.discriminants`). Raises InputError
    unless each part has two or more speakers, one of them with several recordings.
    """
    names = [item["speaker"] for item in train], [item["speaker"] for item in test]
    for own in names:
        if not all(own) or not 2 <= len(set(own)) < len(own):
            raise InputError("the speaker probe needs two speakers or more with several recordings each, held out too")
    x, held_out = (np.stack([_statistics(item) for item in part]) for part in (train, test))
    mean, directions = discriminants(x, names[0], min(DIRECTIONS, len(set(names[0])) - 1))
    vectors = (held_out - mean) @ directions
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines, voices = vectors @ vectors.T, np.array(names[1])
    same, pairs = voices[:, None] == voices, np.triu(np.ones((len(voices), len(voices)), bool), 1)
    return equal_error_rate(cosines[same & pairs], cosines[~same & pairs])


def summary(found: dict[str, Any]) -> str:
    """The result of :func:`content` as text."""
    lines = [
        f"Latents of {found['channels']} channels at {found['frame_rate']:g} Hz ({found['kind']}), "
        f"{found['test']} recordings by {found['speakers']} speakers, probes trained on {found['train']} by others.",
        "",
    ]
    for name in ("linear", "mlp"):
        lines.append(
            f"{name + ' phone probe':20} accuracy {_text(found[name]['accuracy'])} (chance {found['chance']:.3f}), "
            f"CTC phone error rate {_text(found[name]['error_rate'])}"
        )
    for name in ("abx_within", "abx_across"):
        lines.append(f"{name.replace('_', ' ') + ' speakers':20} error {_text(found[name]) if found[name] else '–'}")
    lines.append(f"{'speaker probe':20} equal error rate {found['speaker']:.3f}")
    return "\n".join([*lines, "", "95 % intervals over speakers."])


def _text(interval: dict[str, float]) -> str:
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**interval)


def _statistics(item: dict) -> np.ndarray:
    latents = item["latents"].double().numpy()
    return np.concatenate([latents.mean(axis=1), latents.std(axis=1)])
