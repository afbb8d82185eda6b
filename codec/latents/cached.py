"""Latents of a corpus, its codes and a teacher's features, made where they are not yet: what training begins with."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from codec.checkpoints.load import load_codec
from codec.data.base import Corpus
from codec.data.work_units import WorkUnits, cut
from codec.distillation.teachers.base import Teacher
from codec.latents.export import ToLatents
from codec.latents.extract import INDEX, Encoding, ToTokens, extract
from codec.latents.features import ToFeatures
from codec.latents.latent_space import fingerprint
from codec.latents.shard_file import ENDING
from codec.utils.cache import cache_dir, cache_key
from codec.utils.errors import InputError

UNIT = 600.0  # seconds of audio in a unit, about: several processes share a small corpus, too
PATIENCE = 1.0  # seconds between two looks at what other processes have made


def latents_of(
    ckpt: str | Path,
    corpus: Corpus,
    kind: str = "pre",
    part: tuple[int, int] = (0, 1),
    device: str | torch.device = "cpu",
    report: Callable[[str], None] = print,
) -> Path:
    """The folder, in the user's cache, with the latents of a corpus as a codec's averaged weights make them.

    Where it is whole nothing is made. Else process ``part`` (index, count) of those that ask at once makes its share of
    the units, and waits for the others'.

    Args:
        corpus: at the codec's sample rate.
        kind: ``pre`` or ``post`` quantization.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        CorpusError: if the corpus cannot be cut into units, or too much of it cannot be read.
        InputError: if the codec has no latents of this kind.
    """
    codec, _ = load_codec(ckpt)
    try:
        what = ToLatents(codec, kind)
    except ValueError as error:
        raise InputError(f"kind={kind}: {error}") from error
    units = cut(corpus, UNIT)
    folder = cache_dir() / "latents" / cache_key(units.digest, *what.facts.values())
    if not _whole(units, folder):
        codec.to(device).for_inference()
        _make(what, units, folder, part, report)
    return folder


def codes_of(
    ckpt: str | Path,
    corpus: Corpus,
    part: tuple[int, int] = (0, 1),
    device: str | torch.device = "cpu",
    report: Callable[[str], None] = print,
) -> Path:
    """The folder, in the user's cache, with the codes of a corpus, of all codebooks. Made as latents are
    (:func:`latents_of`).

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        CorpusError: if the corpus cannot be cut into units, or too much of it cannot be read.
        ValueError: if the codec has no codebooks, or no latents after them.
    """
    codec, _ = load_codec(ckpt)
    what, units = ToTokens(codec), cut(corpus, UNIT)
    folder = cache_dir() / "codes" / cache_key(units.digest, fingerprint(codec, "post"), *what.facts.values())
    if not _whole(units, folder):
        codec.to(device).for_inference()
        _make(what, units, folder, part, report)
    return folder


def features_of(
    teacher: Teacher,
    corpus: Corpus,
    hop_length: int,
    part: tuple[int, int] = (0, 1),
    device: str | torch.device = "cpu",
    report: Callable[[str], None] = print,
) -> Path:
    """The folder, in the user's cache, with what a teacher hears in a corpus, in frames of ``hop_length`` samples. Made
    as latents are (:func:`latents_of`).

    Raises:
        CorpusError: if the corpus cannot be cut into units, or too much of it cannot be read.
    """
    what, units = ToFeatures(teacher, corpus.sample_rate, hop_length), cut(corpus, UNIT)
    folder = cache_dir() / "features" / cache_key(units.digest, *what.facts.values())
    if not _whole(units, folder):
        teacher.to(device)
        _make(what, units, folder, part, report)
    return folder


def _whole(units: WorkUnits, folder: Path) -> bool:
    """Whether the index and every unit are there: a damaged one may have been removed."""
    return all((folder / name).is_file() for name in (INDEX, *(name + ENDING for name in units.names)))


def _make(what: Encoding, units: WorkUnits, folder: Path, part: tuple[int, int], report: Callable[[str], None]) -> None:
    extract(what, units, folder, part, report)
    while not _whole(units, folder):
        time.sleep(PATIENCE)
        extract(what, units, folder, part, report)
