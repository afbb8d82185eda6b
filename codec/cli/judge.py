"""``python -m codec judge``: flow models heard, latents read, and the judges themselves."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from codec.utils.atomic import write_atomic
from codec.utils.device import usable_device
from codec.utils.errors import InputError


def add_judge(commands) -> None:
    parser = commands.add_parser(
        "judge", help="flow models -> what is heard of held-out spans that they fill in; --latents: what a codec's hold"
    )
    parser.usage = "%(prog)s [FLOW.ckpt ...] DATASET [--ckpt CODEC] [options]"
    parser.add_argument(
        "words",
        nargs="+",
        metavar="FLOW.ckpt | DATASET",
        help="checkpoints of flow models, if any; then a folder of audio, shards, or dataset=NAME dataset.OPTION=VALUE",
    )
    parser.add_argument("--ckpt", type=Path, help="checkpoint of their codec (none: train the judges, and no more)")
    parser.add_argument("--latents", action="store_true", help="probes and ABX of the codec's latents; no flow model")
    parser.add_argument("--kind", choices=("pre", "post"), help="of these latents: before (default) or after codebooks")
    parser.add_argument("--steps", type=int, default=16, help="of the sampler (%(default)s)")
    parser.add_argument("--guidance", type=float, default=2.0, help="1 is none (%(default)g)")
    parser.add_argument("--sampler", default="euler", help="euler or midpoint (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of spans, noise and probes (%(default)s)")
    parser.add_argument("--split", default="test", choices=("val", "test"), help="the held-out part (%(default)s)")
    parser.add_argument("--clips", type=int, default=100, help="recordings at most (%(default)s)")
    parser.add_argument(
        "--after", type=float, help="seconds: recordings are gone on with after them, instead of spans of 0.3 to 1.5 s"
    )
    parser.add_argument(
        "--silenced", action="store_true", help="encode what is known with silence in the span: no trace of it is left"
    )
    parser.add_argument(
        "--speakers", nargs="*", default=[], help="folders whose manifests name speakers, for the speaker probe, too"
    )
    parser.add_argument("--device", default="cpu", help="of codec and flow models (%(default)s)")
    parser.add_argument("--raw", action="store_true", help="the last weights, not their moving average")
    parser.add_argument("--out", type=Path, help="folder for a report of each system, and the table")
    parser.add_argument("--audio", type=int, default=0, help="... and for a page with so many recordings to hear")
    parser.set_defaults(run=run_judge)


def run_judge(options: argparse.Namespace) -> None:
    flows, dataset = models_among(options.words)
    if options.ckpt is None and (flows or options.latents):
        raise InputError("the spans are filled in as latents of a codec: name its checkpoint, --ckpt PATH")
    if options.latents and flows:
        raise InputError(f"--latents reads a codec's latents, which {flows[0]} does not change: leave one of them out")
    if options.kind and not options.latents:
        raise InputError(
            "--kind goes with --latents: a flow model has latents of its own kind, and the bounds those before"
        )
    if options.clips < 1 or options.seed < 0:
        raise InputError(f"--clips {options.clips} --seed {options.seed}: give 1 or more, and 0 or more")
    if options.latents and (options.after is not None or options.silenced):
        name = "--silenced" if options.after is None else "--after"
        raise InputError(f"{name} is about spans to fill in, and --latents fills in none: leave one of them out")
    if options.after is not None and not options.after > 0:
        raise InputError(
            f"--after {options.after:g}: a recording is gone on with after some of it, give seconds above 0"
        )
    if options.audio and not options.out:
        raise InputError("--audio writes sound beside the reports: say where, --out FOLDER")
    if options.latents:
        read_latents(options, dataset)
    else:
        judge_models(options, flows, dataset)


def models_among(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The checkpoints among the words, and the words that name the corpus."""
    flows = [Path(word) for word in words if word.endswith(".ckpt") and "=" not in word]
    dataset = [word for word in words if word.endswith(".ckpt") <= ("=" in word)]
    if not dataset:
        raise InputError("there is no corpus to judge on: give a folder, or dataset=NAME dataset.OPTION=VALUE")
    return flows, dataset


def judge_models(options: argparse.Namespace, flows: Sequence[Path], dataset: Sequence[str]) -> None:
    """The table of flow models on one codec; without any, that of the codec's bounds; without a codec, the judges."""
    # seconds of importing that no other command should wait for
    from codec.cli.corpus_args import open_corpus
    from codec.data.base import readable
    from codec.evaluation.runs.run_folder import unique_ends
    from codec.flow.evaluation.examples import write_examples
    from codec.flow.evaluation.models import Trial
    from codec.flow.evaluation.table import table, with_spans
    from codec.flow.load import load_flow

    if len(set(flows)) < len(flows):
        raise InputError("a flow model is named twice: name each once")
    models = dict(zip(unique_ends(flows), [load_flow(path, not options.raw) for path in flows], strict=True))
    space = space_of(options.ckpt, list(models.values())) if options.ckpt else None
    corpus = open_corpus(dataset, space.sample_rate if space else None)
    panel = panel_for(corpus, options.split, options.speakers)
    if space is None:
        return
    device = usable_device(options.device)
    for flow in models.values():
        flow.to(device)
    space.to(device).codec.for_inference()
    longest = min((flow.max_frames / flow.frame_rate for flow in models.values()), default=float("inf"))
    whole = any(flow.condition.whole for flow in models.values())  # told of a text that cannot be cut
    unread: list[tuple[str, str]] = []
    clips = readable(corpus.clips(options.split, None if whole or longest == float("inf") else longest), unread)
    recordings, skipped = with_spans(clips, space.sample_rate, options.seed, longest, options.clips, options.after)
    for file, reason in [*unread, *skipped]:
        print(f"left out: {file}: {reason}")
    if not recordings:
        raise InputError("no held-out recording can be used: hold out more, or ones with phones")
    trial = Trial(space, recordings, panel, options.audio, options.silenced)
    reports = trial.bounds()
    for name, flow in models.items():
        told = {"steps": options.steps, "guidance": options.guidance, "sampler": options.sampler}
        reports[name] = trial.judge(flow, name, **told, seed=options.seed, progress=progress(name))
    text = table(reports, panel)
    print(text)
    if options.out:
        write(options.out, reports, text)
        if options.audio:
            write_examples(options.out, trial, reports)


def read_latents(options: argparse.Namespace, dataset: Sequence[str]) -> None:
    """What can be read off a codec's latents of a corpus, which are made where they are not yet."""
    import json

    from codec.checkpoints.load import load_codec
    from codec.cli.corpus_args import open_corpus
    from codec.evaluation.probing.content import content, in_words
    from codec.evaluation.report import plain
    from codec.latents.cached import latents_of
    from codec.latents.latent_corpus import LatentCorpus

    codec, _ = load_codec(options.ckpt)
    corpus = open_corpus(dataset, codec.sample_rate)
    latents = LatentCorpus(
        latents_of(options.ckpt, corpus, options.kind or "pre", device=usable_device(options.device))
    )
    found = content(latents, options.split, seed=options.seed)
    print(in_words(found))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomic(options.out / "latents.json", json.dumps(plain(found), indent=2, sort_keys=True) + "\n")


def panel_for(corpus, split: str, folders: Sequence[str]):
    """Judges apart from those who are held out; says how good they are."""
    from codec.data.base import readable
    from codec.data.folder import FolderCorpus
    from codec.evaluation.judges.mel import SAMPLE_RATE
    from codec.flow.evaluation.panel import Panel

    speakers = {item["speaker"] for item in readable(corpus.clips(split, 0.1), [])} - {""}
    panel = Panel.apart_from(speakers, [FolderCorpus(folder, SAMPLE_RATE) for folder in folders])
    print(f"judges apart from {', '.join(sorted(speakers)) or 'nobody that is named'}")
    print(panel.in_words(), flush=True)
    return panel


def space_of(ckpt: Path, flows: Sequence):
    """The latents that flow models were trained on, the first one's statistics; without any, those before codebooks as
    they are."""
    import torch

    from codec.checkpoints.load import load_codec
    from codec.flow.load import statistics_of
    from codec.latents.index import Statistics
    from codec.latents.latent_space import LatentSpace, fingerprint

    codec, _ = load_codec(ckpt)
    if flows:
        return LatentSpace(codec, statistics_of(flows[0]))
    facts = "pre", fingerprint(codec, "pre"), codec.sample_rate, codec.hop_length
    dim = codec.quantizer.latent_dim
    return LatentSpace(codec, Statistics(*facts, torch.zeros(dim), torch.ones(dim)))


def progress(name: str):
    """A line that counts, on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda share: None
    return lambda share: print(f"\r{name}: {share:.0%}", end="\n" if share >= 1 else "", file=sys.stderr, flush=True)


def write(folder: Path, reports, text: str) -> None:
    """A report of each system (.json, .md and .csv), and the table."""
    from codec.evaluation.evaluate import file_name

    folder.mkdir(parents=True, exist_ok=True)
    for name, report in reports.items():
        report.write(folder, file_name(name.removesuffix(".ckpt")))
    write_atomic(folder / "table.txt", text + "\n")
    print(f"\nwritten to {folder}")
