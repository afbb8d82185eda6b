"""``pack`` and ``extract``: shards, tokens or latents of a speech corpus, by one process or several."""

import argparse
from pathlib import Path

from codec.cli.corpus_args import add_corpus, open_corpus
from codec.cli.options import add_ckpt, add_device, add_n_q, add_raw, count, number, positive
from codec.utils.errors import InputError
from codec.utils.quoting import option


def add_pack(parser: argparse.ArgumentParser) -> None:
    add_work(parser, "for the shards; train on them with dataset=shards dataset.path=FOLDER", "a shard", 7200.0)
    parser.add_argument("--sample-rate", type=count, help="Hz (default: that of each recording)")
    workers = number(int, 0, "a whole number from 0 on")
    parser.add_argument("--workers", type=workers, default=2, help="processes on this machine (%(default)s)")


def add_work(parser: argparse.ArgumentParser, folder: str, unit: str, seconds: float) -> None:
    parser.add_argument("folder", type=Path, help=folder)
    add_corpus(parser)
    parser.add_argument("--seconds", type=positive, default=seconds, help=f"of audio in {unit}, about (%(default)g)")
    parser.add_argument("--rank", type=int, help="of this process (default: torchrun's, SLURM's, or 0)")
    parser.add_argument("--world", type=int, help="number of processes that share the work (default: likewise, or 1)")


def run_pack(options: argparse.Namespace) -> None:
    from codec.data.shard_writer import pack, summary
    from codec.data.work_units import cut
    from codec.utils.distributed import rank_and_world_size

    part = rank_and_world_size(options.rank, options.world)
    units = cut(open_corpus(options.overrides, 24_000), options.seconds)  # any rate: only lengths are read
    index = pack(units, options.folder, options.sample_rate, options.workers, part)
    if index is None:
        print(f"this process is done; the last one to finish writes {options.folder}/index.json")
    else:
        print(f"{summary(index)}; train on them: dataset=shards {option('dataset.path', options.folder)}")


def add_extract(parser: argparse.ArgumentParser) -> None:
    add_work(parser, "for the token or latent files", "a file", 3600.0)
    add_ckpt(parser)
    parser.add_argument("--kind", choices=("tokens", "latents"), default="tokens", help="(%(default)s)")
    add_n_q(parser)
    parser.add_argument("--latents", choices=("pre", "post"), help="before quantization (default) or after it")
    add_device(parser)
    add_raw(parser)


def run_extract(options: argparse.Namespace) -> None:
    from codec.checkpoints.load import load_codec
    from codec.data.work_units import cut
    from codec.latents.export import LatentExtractor
    from codec.latents.extract import INDEX, TokenExtractor, extract
    from codec.utils.device import usable_device
    from codec.utils.distributed import rank_and_world_size

    part = rank_and_world_size(options.rank, options.world)
    other = ("--n-q", options.n_q) if options.kind == "latents" else ("--latents", options.latents)
    if other[1] is not None:
        raise InputError(f"{other[0]} has no meaning with --kind {options.kind}: leave it out")
    device = usable_device(options.device)
    codec, _ = load_codec(options.ckpt, ema=not options.raw)
    try:
        # before for_inference, which changes the weights and with them the fingerprint
        tokens = options.kind == "tokens"
        extractor = TokenExtractor(codec, options.n_q) if tokens else LatentExtractor(codec, options.latents or "pre")
        units = cut(open_corpus(options.overrides, codec.sample_rate), options.seconds)
        extractor.prepare(device)
        index = extract(extractor, units, options.folder, part)
    except ValueError as error:  # too many codebooks, or none; codes or latents that the files cannot hold
        raise InputError(str(error)) from error
    if index is None:
        print(f"this process is done; the last one to finish writes {options.folder / INDEX}")
        return
    recordings, seconds = (sum(unit[name] for unit in index["units"]) for name in ("recordings", "seconds"))
    print(f"{recordings} recordings, {seconds / 3600:.2f} h, {extractor.size}: {options.folder / INDEX}")
