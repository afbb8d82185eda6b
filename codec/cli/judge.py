"""``judge``: scores of speech inpainted by flow models, or probes of the latents of a codec."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from codec.cli import options as shared
from codec.cli.corpus_args import add_corpus, open_corpus
from codec.cli.options import count, number, positive
from codec.utils.atomic import write_atomic
from codec.utils.errors import InputError

if TYPE_CHECKING:
    from codec.flow.evaluation.panel import Panel
    from codec.latents.latent_space import LatentSpace


def add_judge(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Without --ckpt, the bounds of --codec-ckpt are scored (copy synthesis and interpolation); without both, the "
        "judges are trained and no more."
    )
    add_corpus(parser)
    parser.add_argument("--ckpt", type=Path, action="append", default=[], help="of a flow model; may be repeated")
    shared.add_codec_ckpt(parser)
    parser.add_argument(
        "--latents", choices=("pre", "post"), help="probes and ABX of the codec's latents before or after quantization"
    )
    parser.add_argument("--split", default="test", choices=("val", "test"), help="held-out part (%(default)s)")
    parser.add_argument("--clips", type=count, default=100, help="recordings at most (%(default)s)")
    parser.add_argument("--after", type=positive, help="inpaint all after so many seconds, not spans of 0.3 to 1.5 s")
    parser.add_argument("--silenced", action="store_true", help="encode the known part with silence in the span")
    parser.add_argument(
        "--speakers", action="append", default=[], help="folder whose manifest names more speakers; may be repeated"
    )
    shared.add_sampling(parser, steps=16)
    for add in (shared.add_seed, shared.add_device, shared.add_raw):
        add(parser)
    parser.add_argument("--out", type=Path, help="folder for a report of each system, and the table")
    parser.add_argument("--audio", type=number(int, 0, "a whole number"), default=0, help="clips on a page in --out")


def run_judge(options: argparse.Namespace) -> None:
    from codec.utils.device import usable_device

    if len(set(options.ckpt)) < len(options.ckpt):
        raise InputError("a flow model is given twice: give each once")
    if options.audio and not options.out:
        raise InputError("--audio writes sound into the folder of reports: give --out FOLDER")
    options.device = usable_device(options.device)
    if options.latents:
        if not options.codec_ckpt:
            raise InputError("--latents probes the latents of a codec: give --codec-ckpt PATH")
        for name, value in (("ckpt", options.ckpt), ("after", options.after), ("silenced", options.silenced)):
            if value:
                raise InputError(f"--{name} is about flow models, and --latents about a codec alone: leave one out")
        probe_latents(options)
    else:
        judge_models(options)


def judge_models(options: argparse.Namespace) -> None:
    """Print the scores of flow models on one codec; without any, the codec's bounds; without a codec, the judges'."""
    from codec.evaluation.evaluate import file_name
    from codec.evaluation.runs.run_folder import unique_suffixes
    from codec.flow import load
    from codec.flow.evaluation.benchmark import InpaintingBenchmark
    from codec.flow.evaluation.examples import write_examples
    from codec.flow.evaluation.table import table

    loaded = [load.load_with_config(path, not options.raw) for path in options.ckpt]
    models = dict(zip(unique_suffixes(options.ckpt), [flow for flow, _ in loaded], strict=True))
    codec_ckpt = options.codec_ckpt
    if models and not codec_ckpt:
        codec_ckpt = load.codec_ckpt_of(options.ckpt[0], loaded[0][1])
    space = space_of(codec_ckpt, list(models.values())) if codec_ckpt else None
    corpus = open_corpus(options.overrides, space.sample_rate if space else None)
    panel = panel_for(corpus, options.split, options.speakers)
    if space is None:
        return
    for flow in models.values():
        flow.to(options.device)
    space.to(options.device).codec.for_inference()
    recordings = held_out(options, corpus, list(models.values()), space.sample_rate)
    benchmark = InpaintingBenchmark(space, recordings, panel, options.audio, options.silenced)
    reports = benchmark.bounds()
    for name, flow in models.items():
        sampling = {"steps": options.steps, "guidance": options.guidance, "sampler": options.sampler}
        reports[name] = benchmark.evaluate(flow, name, **sampling, seed=options.seed, progress=progress(name))
    text = table(reports, panel)
    print(text)
    if options.out:
        for name, report in reports.items():
            report.write(options.out, file_name(name.removesuffix(".ckpt")))
        write_atomic(options.out / "table.txt", text + "\n")
        print(f"\nwritten to {options.out}")
        if options.audio:
            write_examples(options.out, benchmark, reports)


def held_out(options: argparse.Namespace, corpus, flows: Sequence, sample_rate: int) -> Sequence:
    """Held-out recordings with their spans, not longer than the training items of any model."""
    from codec.data.base import readable
    from codec.flow.evaluation.spans import with_spans

    longest = min((flow.max_frames / flow.frame_rate for flow in flows), default=float("inf"))
    # some are conditioned on a text that cannot be cut with the recording
    whole = any(flow.condition.needs_whole for flow in flows)
    unread: list[tuple[str, str]] = []
    clips = readable(corpus.clips(options.split, None if whole or longest == float("inf") else longest), unread)
    recordings, skipped = with_spans(clips, sample_rate, options.seed, longest, options.clips, options.after)
    for file, reason in [*unread, *skipped]:
        print(f"left out: {file}: {reason}")
    if not recordings:
        raise InputError("no held-out recording can be used: hold out more, or ones with phones")
    return recordings


def probe_latents(options: argparse.Namespace) -> None:
    """Print scores of probes and ABX on a codec's latents of a corpus; extract the latents if they are not cached."""
    from codec.checkpoints.load import load_codec
    from codec.evaluation.probing.content import content, summary
    from codec.evaluation.report import write_json
    from codec.latents.cached import cached_latents
    from codec.latents.latent_corpus import LatentCorpus

    codec, _ = load_codec(options.codec_ckpt)
    corpus = open_corpus(options.overrides, codec.sample_rate)
    latents = LatentCorpus(cached_latents(options.codec_ckpt, corpus, options.latents, device=options.device))
    found = content(latents, options.split, seed=options.seed)
    print(summary(found))
    if options.out:
        write_json(options.out / "latents.json", found)


def panel_for(corpus, split: str, folders: Sequence[str]) -> "Panel":
    """Judges trained without the speakers of ``split``. Prints their own accuracy."""
    from codec.data.base import readable
    from codec.data.folder import FolderCorpus
    from codec.evaluation.judges.mel import SAMPLE_RATE
    from codec.flow.evaluation.panel import Panel

    speakers = {item["speaker"] for item in readable(corpus.clips(split, 0.1), [])} - {""}
    panel = Panel.trained_without(speakers, [FolderCorpus(folder, SAMPLE_RATE) for folder in folders])
    print(f"judges apart from {', '.join(sorted(speakers)) or 'no named speaker'}")
    print(panel.summary(), flush=True)
    return panel


def space_of(ckpt: str | Path, flows: Sequence) -> "LatentSpace":
    """The latent space of the first flow model; without any, latents before quantization, not normalised."""
    import torch

    from codec.checkpoints.load import load_codec
    from codec.flow import load
    from codec.latents.index import Statistics
    from codec.latents.latent_space import LatentSpace, latent_fingerprint

    codec, _ = load_codec(ckpt)
    if flows:
        return LatentSpace(codec, load.statistics_of(flows[0]))
    facts = "pre", latent_fingerprint(codec, "pre"), codec.sample_rate, codec.hop_length
    dim = codec.quantizer.latent_dim
    return LatentSpace(codec, Statistics(*facts, torch.zeros(dim), torch.ones(dim)))


def progress(name: str):
    """A function that prints the share that is done, on a terminal only."""
    if not sys.stderr.isatty():
        return lambda share: None
    return lambda share: print(f"\r{name}: {share:.0%}", end="\n" if share >= 1 else "", file=sys.stderr, flush=True)
