"""``import`` and ``export``: conversion of codec checkpoints from and to other libraries."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from codec.cli.options import add_ckpt, add_force, add_n_q, add_raw
from codec.utils.atomic import atomic_file, refuse_existing

if TYPE_CHECKING:
    from codec.model import Codec

EXPORTS = ("transformers", "moshi", "onnx")


def add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        help="a Mimi: .safetensors file, folder (of moshi or transformers) or Hub id; or Lyra V2: a folder or URL with "
        "its three .tflite files, or lyra for its release",
    )
    parser.add_argument("-o", "--output", type=Path, help="checkpoint to write (mimi.ckpt, lyra.ckpt)")
    add_n_q(parser)
    add_force(parser)


def run_import(options: argparse.Namespace) -> None:
    import torch

    from codec.checkpoints.convert.published import import_published

    if options.output is not None:
        refuse_existing([options.output], options.force)
    codec, config = import_published(options.source, options.n_q)
    output = options.output or Path(f"{config['name']}.ckpt")
    refuse_existing([output], options.force)
    state = {f"codec.{name}": value for name, value in codec.state_dict().items()}
    with atomic_file(output) as file:
        torch.save({"state_dict": state, "config": config, "global_step": 0}, file)
    print(f"{options.source} -> {output}: {summary(codec)}")


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="to write the files into")
    parser.add_argument("--to", required=True, choices=EXPORTS, help="the library that is to load them")
    add_ckpt(parser)
    add_raw(parser)
    add_force(parser)


def run_export(options: argparse.Namespace) -> None:
    from codec.checkpoints.convert import mimi, onnx
    from codec.checkpoints.load import load_codec

    files = onnx.FILES if options.to == "onnx" else mimi.FILES[options.to]
    refuse_existing([options.folder / name for name in files], options.force)
    codec, _ = load_codec(options.ckpt, ema=not options.raw)
    if options.to == "onnx":
        written = onnx.export_onnx(codec, options.folder)
    else:
        written = mimi.export_mimi(codec, options.folder, options.to)
    print(f"{options.ckpt} -> {', '.join(map(str, written))}: {summary(codec)}")


def summary(codec: "Codec") -> str:
    parameters = sum(p.numel() for p in codec.parameters())
    quantizer = codec.quantizer
    return (
        f"{parameters:,} parameters, {quantizer.n_q} codebooks of {quantizer.codebook_size}, {codec.sample_rate} Hz at "
        f"{codec.frame_rate:g} frames per second"
    )
