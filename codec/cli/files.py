"""``encode`` and ``decode``: audio files to token files and back."""

import argparse
import ctypes
import sys
from pathlib import Path

from codec.checkpoints.load import load_codec
from codec.latents.audio_files import decode_file, encode_file
from codec.utils.atomic import refuse_existing
from codec.utils.device import usable_device
from codec.utils.errors import InputError


def add_files(commands) -> None:
    audio, tokens = "audio file (wav, flac, ogg, opus, mp3), any length", "token file"
    encode = commands.add_parser("encode", help="an audio file -> a token file")
    decode = commands.add_parser("decode", help="a token file -> an audio file")
    for parser, source, target, convert in ((encode, audio, tokens, encode_file), (decode, tokens, audio, decode_file)):
        parser.add_argument("source", type=Path, help=source)
        parser.add_argument("target", type=Path, help=f"{target}, to be written")
        add_codec(parser)
        parser.set_defaults(run=run_file, convert=convert)


def add_codec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of the codec")
    parser.add_argument("--n-q", type=int, help="use the first so many codebooks (default: all)")
    parser.add_argument("--device", default="auto", help="(default: a GPU if there is one)")
    parser.add_argument("--raw", action="store_true", help="the last weights, not their moving average")
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")


def run_file(options: argparse.Namespace) -> None:
    refuse_existing([options.target], options.force)
    keep_memory()
    codec, _ = load_codec(options.ckpt, ema=not options.raw)
    codec = codec.to(usable_device(options.device)).for_inference()
    try:
        tokens = options.convert(codec, options.source, options.target, options.n_q)
    except ValueError as error:  # FileError, TokenError, or too many codebooks: one sentence each
        raise InputError(str(error)) from error
    codebooks, frames = tokens.codes.shape
    seconds = tokens.length / tokens.sample_rate
    print(f"{options.source} -> {options.target}: {seconds:.2f} s, {frames} frames of {options.n_q or codebooks} codes")


def keep_memory() -> None:
    """Have glibc keep freed memory: by default each large activation is mapped, and its pages zeroed, anew."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries do without
        if mallopt is not None:
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the highest that glibc takes
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
