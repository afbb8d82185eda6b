"""``import`` and ``export``: checkpoints of other projects in and out."""

import argparse
from pathlib import Path

import torch

from codec.checkpoints.convert import onnx
from codec.checkpoints.convert.mimi import FILES, export_mimi, import_mimi
from codec.checkpoints.load import load_codec
from codec.model import Codec
from codec.utils.atomic import refuse_existing

EXPORTS = {**FILES, "onnx": onnx.FILES}


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
    refuse_existing([options.output], options.force)
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
    refuse_existing([options.folder / name for name in EXPORTS[options.to]], options.force)
    codec, _ = load_codec(options.checkpoint, ema=not options.raw)
    if options.to == "onnx":
        written = onnx.export_onnx(codec, options.folder)
    else:
        written = export_mimi(codec, options.folder, options.to)
    print(f"{options.checkpoint} -> {', '.join(map(str, written))}: {facts(codec)}")


def facts(codec: Codec) -> str:
    parameters = sum(p.numel() for p in codec.parameters())
    quantizer = codec.quantizer
    return (
        f"{parameters:,} parameters, {quantizer.n_q} codebooks of {quantizer.codebook_size}, {codec.sample_rate} Hz at "
        f"{codec.frame_rate:g} frames per second"
    )
