"""Latents, codes and teacher features of a corpus in the user's cache, extracted if they are not there yet."""

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

UNIT = 600.0  # seconds of audio in a work unit, about: several processes share a small corpus, too
POLL = 1.0  # seconds between two looks for the files of other processes


def cached_latents(ckpt: str | Path, corpus: Corpus, kind: str = "pre", **how) -> Path:
    """The folder with the latents of a corpus (at the codec's sample rate), ``kind`` "pre" or "post" quantization, of
    the averaged weights of a checkpoint.

    Args:
        how: ``part`` (rank, world size): of several processes that ask at once, each extracts its share of the units
            and waits for the others; ``device``; ``report``, for progress.

    Raises:
        CheckpointError: if the checkpoint cannot be loaded.
        CorpusError: if the corpus cannot be cut into units, or too much of it cannot be read.
        InputError: if the codec has no latents of this kind.
    """
    codec, _ = load_codec(ckpt)
    try:
        extractor = LatentExtractor(codec, kind)
    except ValueError as error:
        raise InputError(f"kind={kind}: {error}") from error
    return _cached("latents", extractor, corpus, **how)


def cached_codes(ckpt: str | Path, corpus: Corpus, **how) -> Path:
    """The folder with the codes of a corpus, of all codebooks; see :func:`cached_latents`."""
    codec, _ = load_codec(ckpt)
    return _cached("codes", TokenExtractor(codec), corpus, latent_fingerprint(codec, "post"), **how)


def cached_features(teacher: Teacher, corpus: Corpus, hop_length: int, **how) -> Path:
    """The folder with a teacher's features of a corpus, one per ``hop_length`` samples; see :func:`cached_latents`."""
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
    files = [folder / INDEX, *(folder / (unit + ENDING) for unit in units.names)]  # a damaged one may be removed
    if not all(file.is_file() for file in files):
        extractor.prepare(device)
        extract(extractor, units, folder, part, report)
        while not all(file.is_file() for file in files):
            time.sleep(POLL)
            extract(extractor, units, folder, part, report)
    return folder
