"""What a codec's latents hold that a generative model could use: phones, by probes and by ABX, and the voice.

corpus = LatentCorpus(latents_of("codec.ckpt", corpus))
print(in_words(content(corpus)))
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from codec.evaluation.judges.speaker import discriminants, equal_error_rate
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.probing.abx import abx
from codec.evaluation.probing.probes import probe
from codec.utils.errors import InputError

HIDDEN = 256  # width of the MLP
DIRECTIONS = 20  # in which voices differ, at most


def content(corpus: Any, split: str = "test", seed: int = 0) -> dict[str, Any]:
    """Everything measured on recordings of ``split``, by speakers that no probe has learnt from.

    Args:
        corpus: of latents (codec/latents/latent_corpus.py), with phones and speakers.
        seed: of probes and of the draws of ABX.

    Returns:
        Plain values, intervals as dicts of mean, low, high and n:
        ``linear`` and ``mlp``: ``accuracy`` and ``error_rate`` of :func:`codec.evaluation.probing.probes.probe`;
        ``chance`` of the
        former; ``abx_within`` and ``abx_across`` speakers, see :func:`codec.evaluation.probing.abx.abx`, None where
        nothing can be
        compared; ``speaker``, see :func:`speaker_error`; what the latents are, and how many recordings were used.

    Raises:
        InputError: if there are no phones, no voices, or the same voices in both parts.
    """
    train, test = list(corpus.train), list(corpus.clips(split))
    linear, mlp = (probe(corpus, split, hidden, seed=seed) for hidden in (None, HIDDEN))
    return {
        "linear": {"accuracy": linear.accuracy._asdict(), "error_rate": linear.error_rate._asdict()},
        "mlp": {"accuracy": mlp.accuracy._asdict(), "error_rate": mlp.error_rate._asdict()},
        "chance": linear.chance,
        "abx_within": _abx(test, corpus, False, seed),
        "abx_across": _abx(test, corpus, True, seed),
        "speaker": speaker_error(train, test),
        "channels": corpus.dim,
        "frame_rate": corpus.frame_rate,
        "kind": corpus.kind,
        "fingerprint": corpus.fingerprint,
        "train": len(train),
        "test": len(test),
        "speakers": len({item["speaker"] for item in test}),
    }


def speaker_error(train: Sequence[dict], test: Sequence[dict]) -> float:
    """How well voices can be told apart by latents: the equal error rate, in [0, 1], of pairs of recordings by speakers
    held out, 0.5 being chance.

    A recording is the mean and the standard deviation over time of each channel, seen along the (at most 20) directions
    in which the speakers of the training differ (:func:`codec.evaluation.judges.speaker.discriminants`).

    Raises:
        InputError: if there are not two speakers or more on either side, each with several recordings.
    """
    names = [item["speaker"] for item in train], [item["speaker"] for item in test]
    for own in names:
        if not all(own) or not 2 <= len(set(own)) < len(own):
            raise InputError("the speaker probe needs two speakers or more with several recordings each, held out too")
    dim = min(DIRECTIONS, len(set(names[0])) - 1)
    x, held = (np.stack([_statistics(item) for item in part]) for part in (train, test))
    mean, directions = discriminants(x, names[0], dim)
    vectors = (held - mean) @ directions
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines, voices = vectors @ vectors.T, np.array(names[1])
    same, pairs = voices[:, None] == voices, np.triu(np.ones((len(voices), len(voices)), bool), 1)
    return equal_error_rate(cosines[same & pairs], cosines[~same & pairs])


def in_words(found: dict[str, Any]) -> str:
    """What :func:`content` found, for the terminal."""
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


def _text(found: dict[str, float]) -> str:
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**found)


def _abx(items: Sequence[dict], corpus: Any, across: bool, seed: int) -> dict[str, float] | None:
    try:
        found: Interval = abx(items, corpus.frame_rate, corpus.sample_rate, across, seed)
    except InputError:  # too few recordings
        return None
    return found._asdict()


def _statistics(item: dict) -> np.ndarray:
    latents = item["latents"].double().numpy()
    return np.concatenate([latents.mean(axis=1), latents.std(axis=1)])
