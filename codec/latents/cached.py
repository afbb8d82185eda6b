"""Latents, codes and teacher features of a corpus in the user's cache folder, extracted on first use."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from codec.checkpoints.load import load_codec
from codec.data.base import Corpus
from codec.data.work_units import cut
from codec.distillation.teachers.base import Teacher
from codec.latents.export import LatentExtractor
from codec.latents.extract import INDEX, Extractor, TokenExtractor, extract
from codec.latents.features import FeatureExtractor
from codec.latents.latent_space import latent_fingerprint
from codec.latents.shard_file import ENDING
from codec.utils.cache import cache_dir, cache_key
from codec.utils.errors import InputError

UNIT = 600.0  # seconds of audio in a work unit, about: short, so that several processes can share a small corpus
POLL = 1.0  # seconds between checks for the files of other processes


def cached_latents(ckpt: str | Path, corpus: Corpus, kind: str = "pre", **how) -> Path:
    """The folder with a codec's latents ("pre" or "post" quantization; averaged weights) of a corpus at its own rate.

    Args:
        how: ``part`` (rank, world size) if several processes call this at once: each extracts its share of the units
            and waits for the others; ``device``; ``report``, a function for progress messages.
    """
    codec, _ = load_codec(ckpt)
    try:
        extractor = LatentExtractor(codec, kind)
    except ValueError as error:
        raise InputError(f"kind={kind}: {error}") from error
    return _cached("latents", extractor, corpus, **how)


def cached_codes(ckpt: str | Path, corpus: Corpus, **how) -> Path:
    """The folder with the codes of all codebooks of a corpus; see :func:`cached_latents`."""
    codec, _ = load_codec(ckpt)
    return _cached("codes", TokenExtractor(codec), corpus, latent_fingerprint(codec, "post"), **how)


def cached_features(teacher: Teacher, corpus: Corpus, hop_length: int, **how) -> Path:
    """The folder with a teacher's features of a corpus, a frame per ``hop_length`` samples; see `cached_latents`."""
    return _cached("features", FeatureExtractor(teacher, corpus.sample_rate, hop_length), corpus, **how)


def _cached(
    name: str,
    extractor: Extractor,
    corpus: Corpus,
    *identity: str,
    part: tuple[int, int] = (0, 1),
    device: str | torch.device = "cpu",
    report: Callable[[str], None] = print,
) -> Path:
    units = cut(corpus, UNIT)
    folder = cache_dir() / name / cache_key(units.digest, *identity, *extractor.facts.values())
    files = [folder / INDEX, *(folder / (unit + ENDING) for unit in units.names)]  # a user may remove a damaged one
    if not all(file.is_file() for file in files):
        extractor.prepare(device)
        extract(extractor, units, folder, part, report)
        while not all(file.is_file() for file in files):
            time.sleep(POLL)
            extract(extractor, units, folder, part, report)
    return folder
