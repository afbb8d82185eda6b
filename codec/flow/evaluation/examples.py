"""Listening page of inpainted spans of every system, beside the recordings."""

from collections.abc import Mapping
from pathlib import Path

from codec.evaluation.evaluate import write_audio
from codec.evaluation.html.base import SystemResult
from codec.evaluation.html.report import write_page
from codec.evaluation.report import Report
from codec.flow.evaluation.benchmark import InpaintingBenchmark
from codec.flow.evaluation.table import CEILING, FLOOR, RECORDING
from codec.utils.errors import InputError

FACTS = ("frame_rate", "steps", "guidance", "sampler", "seed", "frechet")  # that the page shows


def write_examples(folder: Path, benchmark: InpaintingBenchmark, reports: Mapping[str, Report]) -> Path:
    """Write ``examples.html`` and the audio of ``benchmark.examples`` (``audio/``, FLAC) -> path of the page."""
    rate = benchmark.space.sample_rate
    names = {r.clip: "{} ({:.2f} to {:.2f} s)".format(r.clip, *r.span) for r in benchmark.recordings}
    references = {
        r.clip: write_audio(folder, n, r.clip, "recording", r.wav, rate) for n, r in enumerate(benchmark.examples)
    }
    results = []
    for system, report in reports.items():
        if system == RECORDING:
            continue
        audio = {}
        for n, (clip, wav) in enumerate(benchmark.decoded[system].items()):
            if not isinstance(wav, InputError):
                decoded = write_audio(folder, n, clip, system, wav, rate)
                audio[names[clip]] = {"reference": references[clip], "decoded": decoded}
        clips = report.clips.assign(clip=report.clips["clip"].map(names))
        failures = [one | {"clip": names.get(one["clip"], one["clip"])} for one in report.failures]
        facts = {name: report.facts[name] for name in FACTS if name in report.facts}
        renamed = Report(clips, failures, {"sample_rate": rate, **facts}, audio)
        results.append(SystemResult(system.removesuffix(".ckpt"), renamed, folder, baseline=system in (CEILING, FLOOR)))
    return write_page(folder / "examples.html", sorted(results, key=lambda result: result.baseline), "Inpainted spans")
