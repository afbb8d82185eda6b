"""The command line: ``python -m codec COMMAND`` (training and scoring are ``train.py`` and ``eval.py``).

python -m codec encode in.wav out.codes --ckpt mimi.ckpt
python -m codec decode out.codes again.wav --ckpt mimi.ckpt
python -m codec import kyutai/mimi -o mimi.ckpt
python -m codec export runs/.../checkpoints/last.ckpt --to transformers DIR
python -m codec compare runs/multirun/...
python -m codec ratings results-*.json
python -m codec pack dataset=voiceassistant DIR
python -m codec extract DIR TOKENS --ckpt mimi.ckpt
python -m codec extract kind=latents DIR LATENTS --ckpt mimi.ckpt
python -m codec inpaint in.wav --span 1.2 1.9 --flow flow.ckpt -o out.wav
python -m codec tts "what to say" --flow flow.ckpt -o out.wav
python -m codec edit in.wav --old "some words" --new "others" --flow flow.ckpt -o out.wav
python -m codec judge flow.ckpt dataset=espeak --ckpt mimi.ckpt
"""

import argparse
import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from codec.bulk import add_extract, add_pack
from codec.checkpoint import load_codec
from codec.errors import InputError
from codec.files import decode_file, encode_file
from codec.filling import add_edit, add_inpaint, add_tts
from codec.interop import onnx
from codec.interop.mimi import FILES, export_mimi, import_mimi
from codec.judge.command import add_judge
from codec.model import Codec
from codec.run import check_free, one_sentence

EXPORTS = {**FILES, "onnx": onnx.FILES}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m codec", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    files, flow = (add_files, add_import, add_export), (add_inpaint, add_tts, add_edit, add_judge)
    for add in (*files, add_compare, add_ratings, add_pack, add_extract, *flow):
        add(commands)
    options = parser.parse_args(arguments)
    with one_sentence():
        try:
            options.run(options)
        except OSError as error:  # a folder that is a file, a place that cannot be written
            raise InputError(f"{error.filename}: {error.strerror}") from error


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
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--raw", action="store_true", help="the last weights, not their moving average")
    parser.add_argument("--force", action="store_true", help="replace the target if it exists")


def run_file(options: argparse.Namespace) -> None:
    check_free([options.target], options.force)
    keep_memory()
    codec, _ = load_codec(options.ckpt, ema=not options.raw)
    try:
        codec = codec.to(options.device).for_inference()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {options.device} cannot be used: {str(error).splitlines()[0]}") from error
    try:
        tokens = options.convert(codec, options.source, options.target, options.n_q)
    except ValueError as error:  # FileError, TokenError, or too many codebooks: one sentence each
        raise InputError(str(error)) from error
    codebooks, frames = tokens.codes.shape
    seconds = tokens.length / tokens.sample_rate
    print(f"{options.source} -> {options.target}: {seconds:.2f} s, {frames} frames of {options.n_q or codebooks} codes")


def add_import(commands) -> None:
    parser = commands.add_parser("import", help="Kyutai's Mimi -> a checkpoint of this project")
    parser.add_argument("source", help=".safetensors file or folder (moshi's or transformers' layout), or a Hub id")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("mimi.ckpt"), help="checkpoint to write (%(default)s)"
    )
    parser.add_argument("--n-q", type=int, help="keep the first so many codebooks (default: all)")
    parser.add_argument("--force", action="store_true", help="replace the checkpoint if it exists")
    parser.set_defaults(run=run_import)


def run_import(options: argparse.Namespace) -> None:
    check_free([options.output], options.force)
    codec, config = import_mimi(options.source, options.n_q)
    state = {f"codec.{name}": value for name, value in codec.state_dict().items()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "config": config, "global_step": 0}, options.output)
    print(f"{options.source} -> {options.output}: {facts(codec)}")


def add_export(commands) -> None:
    parser = commands.add_parser("export", help="a Mimi of this project -> files for others; any causal codec -> ONNX")
    parser.add_argument("checkpoint", help="a .ckpt file")
    parser.add_argument("--to", required=True, choices=EXPORTS, help="who is to read it")
    parser.add_argument("folder", type=Path, help="to write the files into")
    parser.add_argument("--raw", action="store_true", help="the last weights, not their moving average")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> None:
    check_free([options.folder / name for name in EXPORTS[options.to]], options.force)
    codec, _ = load_codec(options.checkpoint, ema=not options.raw)
    if options.to == "onnx":
        written = onnx.export_onnx(codec, options.folder)
    else:
        written = export_mimi(codec, options.folder, options.to)
    print(f"{options.checkpoint} -> {', '.join(map(str, written))}: {facts(codec)}")


def add_compare(commands) -> None:
    parser = commands.add_parser("compare", help="runs -> their scores, what failed, and what each part does")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, or folders that hold some, as of a multirun")
    parser.add_argument(
        "--scores", type=Path, help="folder that eval.py wrote about them (default: training's reports)"
    )
    parser.add_argument("--out", type=Path, help="folder of compare.html, .csv and .json (compare/ beside the runs)")
    parser.add_argument("--title", default="Runs compared", help="of the page (%(default)s)")
    parser.add_argument("--metrics", type=lambda names: names.split(","), help="only these: a,b,c")
    parser.set_defaults(run=run_compare)


def run_compare(options: argparse.Namespace) -> None:
    # a second of importing that no other command should wait for
    from codec.compare_files import common_folder, compare, in_words, write_files

    result = compare(options.runs, options.scores, options.metrics)
    folder = options.out or common_folder(result.runs) / "compare"
    print(in_words(result, options.metrics))
    written = write_files(result, folder, options.title)
    print(f"\nwritten to {', '.join(map(str, written))}")
    if not result.scored:
        raise InputError(f"no run has scores to compare; {written[0]} has their states")


def add_ratings(commands) -> None:
    parser = commands.add_parser("ratings", help="results of a blind listening test -> its scores")
    parser.add_argument("results", nargs="+", type=Path, help="JSON files that listening.html gave, one per listener")
    parser.add_argument("--against", help="also the paired difference to this system")
    parser.set_defaults(run=run_ratings)


def run_ratings(options: argparse.Namespace) -> None:
    from codec.page.ratings import read_results, screened, summarise

    try:
        kept, excluded = screened(read_results(options.results))
        if excluded:
            print(f"excluded, for not hearing the hidden reference (BS.1534-3): {', '.join(excluded)}\n")
        if kept.empty:
            raise InputError("no listener is left: all rated the hidden reference below 90 too often")
        print(summarise(kept, options.against).to_string(index=False, float_format="%.1f"))
    except ValueError as error:
        raise InputError(str(error)) from error


def keep_memory() -> None:
    """Have glibc keep freed memory: by default each large activation is mapped, and its pages zeroed, anew."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries do without
        if mallopt is not None:
            mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, the highest that glibc takes
            mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def facts(codec: Codec) -> str:
    parameters = sum(p.numel() for p in codec.parameters())
    quantizer = codec.quantizer
    return (
        f"{parameters:,} parameters, {quantizer.n_q} codebooks of {quantizer.size}, {codec.sample_rate} Hz at "
        f"{codec.frame_rate:g} frames per second"
    )


if __name__ == "__main__":
    main()
