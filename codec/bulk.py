"""``python -m codec pack`` and ``extract``: whole corpora, by as many processes as there are."""

import argparse
from pathlib import Path

from codec.run import InputError
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
