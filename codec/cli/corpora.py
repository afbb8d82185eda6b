"""``python -m codec pack`` and ``extract``: whole corpora, by as many processes as there are."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from codec.utils.device import usable_device
from codec.utils.distributed import rank_and_world_size
from codec.utils.errors import InputError


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
    from codec.cli.corpus_args import open_corpus
    from codec.data.shard_writer import pack, summary
    from codec.data.work_units import cut

    part = rank_and_world_size(options.rank, options.world)
    if options.workers < 0 or not options.seconds > 0:
        raise InputError(f"--workers {options.workers} --seconds {options.seconds:g}: give 0 or more, and more than 0")
    units = cut(open_corpus(options.dataset, 24_000), options.seconds)  # a rate to measure lengths with, no more
    index = pack(units, options.folder, options.sample_rate, options.workers, part)
    if index is None:
        print(f"this process is done; the last one to finish writes {options.folder}/index.json")
    else:
        print(f"{summary(index)}; train on them: dataset=shards dataset.path={options.folder}")


def add_extract(commands) -> None:
    parser = commands.add_parser(
        "extract", help="a corpus -> its tokens or latents, by many processes; the same call goes on"
    )
    add_corpus(parser, "to write the units into")
    parser.usage = "%(prog)s [kind=tokens|latents] DATASET FOLDER --ckpt CKPT [options]"
    parser.add_argument("--ckpt", type=Path, required=True, help="checkpoint of the codec")
    parser.add_argument("--n-q", type=int, help="kind=tokens: use the first so many codebooks (default: all)")
    parser.add_argument("--latents", choices=("pre", "post"), help="kind=latents: before (default) or after codebooks")
    parser.add_argument(
        "--device", default="auto", help="(default: a GPU where there is one, cuda:LOCAL_RANK under torchrun)"
    )
    parser.add_argument("--raw", action="store_true", help="the last weights, not their moving average")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of audio in a unit, about (%(default)g)")
    parser.set_defaults(run=run_extract)


def run_extract(options: argparse.Namespace) -> None:
    from codec.checkpoints.load import load_codec
    from codec.cli.corpus_args import open_corpus
    from codec.data.work_units import cut
    from codec.latents.export import ToLatents
    from codec.latents.extract import INDEX, ToTokens, extract

    part = rank_and_world_size(options.rank, options.world)
    if not options.seconds > 0:
        raise InputError(f"--seconds {options.seconds:g}: give more than 0")
    wanted, dataset = kind_among(options.dataset)
    for name, value, other in (("--n-q", options.n_q, "latents"), ("--latents", options.latents, "tokens")):
        if value is not None and wanted == other:
            raise InputError(f"{name} {value} has no meaning with kind={other}: leave it out")
    codec, _ = load_codec(options.ckpt, ema=not options.raw)
    try:  # before for_inference, after which weights are no longer those of the checkpoint
        encoding = ToLatents(codec, options.latents or "pre") if wanted == "latents" else ToTokens(codec, options.n_q)
    except ValueError as error:  # too many codebooks, or none
        raise InputError(str(error)) from error
    units = cut(open_corpus(dataset, codec.sample_rate), options.seconds)
    codec.to(usable_device(options.device)).for_inference()
    try:
        index = extract(encoding, units, options.folder, part)
    except ValueError as error:  # codes or latents that files do not hold
        raise InputError(str(error)) from error
    if index is None:
        print(f"this process is done; the last one to finish writes {options.folder / INDEX}")
        return
    recordings, seconds = (sum(unit[name] for unit in index["units"]) for name in ("recordings", "seconds"))
    print(f"{recordings} recordings, {seconds / 3600:.2f} h, {encoding.size}: {options.folder / INDEX}")


def kind_among(words: Sequence[str]) -> tuple[str, list[str]]:
    """What is wanted (``kind=...`` among the words, or tokens), and the words that name the corpus."""
    said = [word.removeprefix("kind=") for word in words if word.startswith("kind=")]
    left = [word for word in words if not word.startswith("kind=")]
    if len(said) > 1 or not set(said) <= {"tokens", "latents"}:
        raise InputError(f"{' '.join(f'kind={word}' for word in said)}: choose kind=tokens or kind=latents")
    if not left:
        raise InputError(f"{words[0]} names no corpus: give a folder, or dataset=NAME dataset.OPTION=VALUE")
    return (said or ["tokens"])[0], left
