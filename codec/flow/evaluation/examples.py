"""A page on which spans can be heard as every system filled them in, beside the recording."""

from collections.abc import Mapping
from pathlib import Path

from codec.evaluation.evaluate import write_audio
from codec.evaluation.html.base import Entry
from codec.evaluation.html.report import write_page
from codec.evaluation.report import Report
from codec.flow.evaluation.models import Trial
from codec.flow.evaluation.table import CEILING, FLOOR, RECORDING
from codec.utils.errors import InputError

FACTS = ("frame_rate", "steps", "guidance", "sampler", "seed", "frechet")  # that the page shows


def write_examples(folder: Path, trial: Trial, reports: Mapping[str, Report]) -> Path:
    """Write ``examples.html`` and its sound (``audio/``, FLAC) of ``trial.heard`` -> the page.

    Each is named by its clip and where the span is.
    """
    rate = trial.space.sample_rate
    names = {
        recording.clip: "{} ({:.2f} to {:.2f} s)".format(recording.clip, *recording.span)
        for recording in trial.recordings
    }
    given = {
        recording.clip: write_audio(folder, n, recording.clip, "recording", recording.wav, rate)
        for n, recording in enumerate(trial.heard)
    }
    entries = []
    for system, report in reports.items():
        if system == RECORDING:
            continue
        audio = {}
        for n, (clip, sound) in enumerate(trial.sounds[system].items()):
            if not isinstance(sound, InputError):
                decoded = write_audio(folder, n, clip, system, sound, rate)
                audio[names[clip]] = {"reference": given[clip], "decoded": decoded}
        clips = report.clips.assign(clip=report.clips["clip"].map(names))
        failures = [one | {"clip": names.get(one["clip"], one["clip"])} for one in report.failures]
        facts = {name: report.facts[name] for name in FACTS if name in report.facts}
        shown = Report(clips, failures, {"sample_rate": rate, **facts}, audio)
        entries.append(Entry(system.removesuffix(".ckpt"), shown, folder, baseline=system in (CEILING, FLOOR)))
    return write_page(folder / "examples.html", sorted(entries, key=lambda entry: entry.baseline), "Filled-in spans")
