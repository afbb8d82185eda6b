"""``python -m codec pack`` and ``extract``: whole corpora, by as many processes as there are."""

import argparse
import os
from pathlib import Path

from codec.errors import InputError
from codec.share import ShareError, share


def add_pack(commands) -> None:
    parser = commands.add_parser("pack", help="a corpus -> shards, for dataset=shards; the same call again goes on")
    add_corpus(parser, "to write the shards into")
    parser.add_argument("--sample-rate", type=int, help="Hz (default: that of each recording)")
    parser.add_argument("--seconds", type=float, default=7200.0, help="of audio in a shard, about (%(default)g)")
    parser.add_argument("--workers", type=int, default=2, help="processes on this machine (%(default)s)")
    parser.set_defaults(run=run_pack)


def add_corpus(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument(
        "dataset", nargs="+", help="a folder of audio, shards (a folder or URL), or dataset=NAME dataset.OPTION=VALUE"
    )
    parser.add_argument("folder", type=Path, help=purpose)
    parser.add_argument("--rank", type=int, help="this process among --world (default: torchrun's, SLURM's, or 0 of 1)")
    parser.add_argument("--world", type=int, help="how many processes share the work")


def run_pack(options: argparse.Namespace) -> None:
    from codec.data.pack import pack, summary
    from codec.data.units import cut
    from codec.source import open_corpus

    part = my_share(options)
    if options.workers < 0 or not options.seconds > 0:
        raise InputError(f"--workers {options.workers} --seconds {options.seconds:g}: give 0 or more, and more than 0")
    units = cut(open_corpus(options.dataset, 24_000), options.seconds)  # a rate to measure lengths with, no more
    index = pack(units, options.folder, options.sample_rate, options.workers, part)
    if index is None:
        print(f"this process is done; the last one to finish writes {options.folder}/index.json")
    else:
        print(f"{summary(index)}; train on them: dataset=shards dataset.path={options.folder}")


def my_share(options: argparse.Namespace) -> tuple[int, int]:
    try:
        return share(options.rank, options.world)
    except ShareError as error:
        raise InputError(str(error)) from error


def add_extract(commands) -> None:
    parser = commands.add_parser("extract", help="a corpus -> its tokens, by many processes; the same call goes on")
    add_corpus(parser, "to write the tokens into")
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of the codec")
    parser.add_argument("--n-q", type=int, help="use the first so many codebooks (default: all)")
    parser.add_argument("--device", help="(default: a GPU where there is one, cuda:LOCAL_RANK under torchrun)")
    parser.add_argument("--raw", action="store_true", help="the last weights, not their moving average")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of audio in a unit, about (%(default)g)")
    parser.set_defaults(run=run_extract)


def run_extract(options: argparse.Namespace) -> None:
    import torch

    from codec.checkpoint import load_codec
    from codec.data.units import cut
    from codec.extract import INDEX, extract
    from codec.source import open_corpus

    part = my_share(options)
    if not options.seconds > 0:
        raise InputError(f"--seconds {options.seconds:g}: give more than 0")
    codec, _ = load_codec(options.ckpt, ema=not options.raw)
    device = options.device or (f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
    units = cut(open_corpus(options.dataset, codec.sample_rate), options.seconds)
    try:
        codec = codec.to(device).for_inference()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error
    try:
        index = extract(codec, units, options.folder, options.n_q, part)
    except ValueError as error:  # too many codebooks, or none
        raise InputError(str(error)) from error
    if index is None:
        print(f"this process is done; the last one to finish writes {options.folder / INDEX}")
        return
    recordings, hours = (sum(unit[name] for unit in index["units"]) for name in ("recordings", "seconds"))
    print(f"{recordings} recordings, {hours / 3600:.2f} h, {index['n_q']} codebooks: {options.folder / INDEX}")
