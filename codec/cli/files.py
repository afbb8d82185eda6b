"""``encode`` and ``decode``: a codec between audio files and token files."""

import argparse
import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from codec.cli.options import add_ckpt, add_device, add_force, add_n_q, add_raw, count
from codec.utils.atomic import refuse_existing
from codec.utils.errors import InputError

if TYPE_CHECKING:
    from codec.latents.token_file import Tokens


def add_encode(parser: argparse.ArgumentParser) -> None:
    add_files(parser, "audio file (wav, flac, ogg, opus, mp3), any rate and length", "token file to write")
    beam = "paths of the search for codes: more find better ones, in more time (%(default)s)"
    parser.add_argument("--beam", type=count, default=1, help=beam)


def add_decode(parser: argparse.ArgumentParser) -> None:
    add_files(parser, "token file", "audio file to write, in the format of its ending")


def add_files(parser: argparse.ArgumentParser, source: str, target: str) -> None:
    parser.add_argument("source", type=Path, help=source)
    parser.add_argument("target", type=Path, help=target)
    for add in (add_ckpt, add_n_q, add_device, add_raw, add_force):
        add(parser)


def run_encode(options: argparse.Namespace) -> None:
    from codec.data.audio import probe
    from codec.latents.audio_files import encode_file

    tokens = convert(options, encode_file)
    if (rate := probe(options.source)[1]) != tokens.sample_rate:
        print(f"it has {rate:,} Hz and was resampled to the codec's {tokens.sample_rate:,} Hz")


def run_decode(options: argparse.Namespace) -> None:
    from codec.latents.audio_files import decode_file

    convert(options, decode_file)


def convert(options: argparse.Namespace, convert_file: Callable) -> "Tokens":
    from codec.checkpoints.load import load_codec
    from codec.utils.device import usable_device

    refuse_existing([options.target], options.force)
    keep_freed_memory()
    codec, _ = load_codec(options.ckpt, ema=not options.raw)
    codec = codec.to(usable_device(options.device)).for_inference()
    try:
        codec.search_with(getattr(options, "beam", 1))
        tokens = convert_file(codec, options.source, options.target, options.n_q)
    except ValueError as error:  # too many codebooks, or none
        raise InputError(str(error)) from error
    codebooks, frames = tokens.codes.shape
    seconds = tokens.length / tokens.sample_rate
    print(f"{options.source} -> {options.target}: {seconds:.2f} s, {frames} frames of {options.n_q or codebooks} codes")
    return tokens


def keep_freed_memory() -> None:
    """Make glibc reuse freed memory; by default, each large activation is mapped anew and its pages are zeroed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the maximum that glibc accepts
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
