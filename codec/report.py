"""From a codec and a set of clips to one report: numbers with intervals, what failed, and sound to listen to.

A report is reproducible: the same evaluation written twice gives the same bytes (no time stamps, sorted keys,
six significant digits). What could not be scored is NaN in the table, null in JSON, counted per metric and
listed.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import scipy.signal
import soundfile
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from codec.metrics.base import Metric
from codec.metrics.intervals import bootstrap
from codec.metrics.pool import score_clips
from codec.metrics.table import METRICS, OPTIONAL

ABOUT_CLIP = ("clip", "speaker", "seconds")  # every other column of `Report.clips` is a metric


@dataclass
class Report:
    """The result of one evaluation.

    clips: one row per clip: clip, speaker, seconds, then one column per metric, NaN where it failed.
    failures: {clip, metric, reason}; the metric is "codec" where the codec itself raised.
    facts: what the numbers belong to (sample_rate Hz, frame_rate Hz, n_q, kbit/s, parameters, checkpoint
        step ...): numbers, text, None, and lists or dicts of them.
    """

    clips: pandas.DataFrame
    failures: list[dict[str, str]]
    facts: dict[str, Any]

    def summary(self) -> dict[str, dict[str, float]]:
        """metric -> {mean, low, high, n, failed}: 95 % bootstrap interval over the `n` clips with a score."""
        metrics = [column for column in self.clips.columns if column not in ABOUT_CLIP]
        return {
            name: {**bootstrap(self.clips[name])._asdict(), "failed": int(self.clips[name].isna().sum())}
            for name in metrics
        }

    def table(self) -> str:
        """Plain text for the terminal."""
        rows = list(self._rows())
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, ["-" * width for width in widths])
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines += ["", *(f"{name}: {_show(value)}" for name, value in self.facts.items())]
        if self.failures:
            lines += ["", f"failures: {len(self.failures)}"]
            lines += [f"  {line}" for line in self._failure_lines(most=10)]
        return "\n".join(lines)

    def markdown(self) -> str:
        """The same as Markdown, with every failure listed."""
        header, *rows = self._rows()
        lines = ["# Evaluation", "", *_markdown_table(header, rows), ""]
        lines += ["Mean over clips with a 95 % bootstrap interval; the arrow points to better.", ""]
        facts = [[name, _show(value)] for name, value in self.facts.items()]
        lines += _markdown_table(["fact", "value"], facts)
        if self.failures:
            lines += ["", "## Failures", "", *(f"- {line}" for line in self._failure_lines())]
        return "\n".join(lines) + "\n"

    def write(self, folder: str | Path, stem: str = "report") -> Path:
        """Write `stem`.json, .md and .csv (one row per clip) into `folder`; returns the JSON file's path.

        Each file appears whole or not at all (temporary file, then rename).
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "facts": self.facts,
            "summary": self.summary(),
            "failures": self.failures,
            "clips": self.clips.to_dict(orient="records"),
        }
        text = json.dumps(_plain(content), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        rows = self.clips.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        _write(folder / f"{stem}.json", text + "\n")
        _write(folder / f"{stem}.md", self.markdown())
        _write(folder / f"{stem}.csv", rows)
        return folder / f"{stem}.json"

    def _rows(self) -> Iterator[list[str]]:
        yield ["metric", "mean", "95 % interval", "clips", "failed"]
        for key, entry in self.summary().items():
            title = key
            if metric := METRICS.get(key) or OPTIONAL.get(key):
                unit = f" ({metric.unit})" if metric.unit else ""
                title = f"{metric.name}{unit} {'↑' if metric.higher_is_better else '↓'}"
            mean, low, high = (f"{entry[name]:.3f}" for name in ("mean", "low", "high"))
            yield [title, mean, f"[{low}, {high}]", str(entry["n"]), str(entry["failed"])]

    def _failure_lines(self, most: int | None = None) -> list[str]:
        lines = [f"{failure['clip']}, {failure['metric']}: {failure['reason']}" for failure in self.failures]
        if most is not None and len(lines) > most:
            lines = [*lines[:most], f"... and {len(lines) - most} more"]
        return lines


def evaluate(
    reconstruct: Callable[[Tensor], Tensor],
    clips: Iterable[Mapping[str, Any]],
    sample_rate: int,
    facts: Mapping[str, Any],
    workers: int | None = None,
    metrics: Mapping[str, Metric] = METRICS,
    audio_folder: str | Path | None = None,
    audio_count: int = 8,
) -> Report:
    """Run a codec over clips, one by one, and score it while it runs.

    reconstruct: wav [1, 1, T] -> wav [1, 1, T] at `sample_rate`; eval mode, no_grad and the device are its
        own matter.
    clips: items with `wav` [1, T] in [-1, 1], and `file` and `speaker` where known.
    facts: see `Report`; read at the end, so that `reconstruct` may still add to them (the codes' entropy).
    workers: processes for the metrics, see `codec.metrics.pool.score_clips`.
    audio_folder: where to write the first `audio_count` pairs, as 16-bit NN_name_reference.wav,
        NN_name_decoded.wav.

    A clip on which `reconstruct` raises is listed as a failure and has no scores. Raises ValueError where
    there is no clip, a wav is not [1, T], or the codec returns another length than it was given.
    """
    rows: list[dict[str, Any]] = []
    scored: list[int] = []  # the rows that have a reconstruction
    failures: list[dict[str, str]] = []

    def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for index, item in enumerate(clips):
            wav, name = item["wav"], _clip_name(item, index)
            if wav.ndim != 2 or wav.shape[0] != 1:
                raise ValueError(f"Clip {name}: wav must be [1, T] (mono), not {list(wav.shape)}.")
            seconds = wav.shape[-1] / sample_rate
            rows.append({"clip": name, "speaker": item.get("speaker"), "seconds": seconds})
            try:
                decoded = reconstruct(wav[None])
            except Exception as error:  # one odd clip must not end an evaluation of an hour
                reason = f"{type(error).__name__}: {error}"
                failures.append({"clip": name, "metric": "codec", "reason": reason})
                continue
            if decoded.shape != wav[None].shape:
                shapes = f"{list(wav[None].shape)} became {list(decoded.shape)}"
                raise ValueError(f"Clip {name}: the codec must return the length it was given; {shapes}.")
            reference, estimate = (x.detach().float().cpu().numpy().reshape(-1) for x in (wav, decoded))
            if audio_folder is not None and index < audio_count:
                _write_audio(Path(audio_folder), index, name, reference, estimate, sample_rate)
            scored.append(index)
            yield name, reference, estimate

    scores, missing = score_clips(pairs(), sample_rate, metrics, workers)
    if not rows:
        raise ValueError("There is no clip to evaluate.")
    scores.index = scored
    table = pandas.DataFrame(rows, columns=list(ABOUT_CLIP)).join(scores.drop(columns="clip"))
    total = {"clips": len(table), "seconds": float(table["seconds"].sum())}
    return Report(table, failures + missing, {"sample_rate": sample_rate, **facts, **total})


def spectrogram_figure(reference, estimate, sample_rate: int) -> Figure:
    """Reference above estimate ([T] or [1, T] in [-1, 1], on the CPU) as spectrograms in dB, for a logger.

    One colour scale for both, 80 dB down from the reference's loudest bin, so that lost level is seen too.
    Built without pyplot, whose global state leaks a figure per call and is not safe in a logger's thread.
    """
    size = 2 ** round(math.log2(0.04 * sample_rate))  # about 40 ms: harmonics are resolved, syllables too
    spectra = []
    for wav in (reference, estimate):
        wav = np.asarray(wav, dtype=np.float32).reshape(-1)
        wav = np.pad(wav, (0, max(0, size - len(wav))))  # a clip may be shorter than one window
        frequencies, times, power = scipy.signal.spectrogram(wav, sample_rate, "hann", size, size * 3 // 4)
        spectra.append(10 * np.log10(power + 1e-14))  # [1 + size / 2, F]
    extent = (0, times[-1] + times[0], 0, frequencies[-1] / 1000)  # s and kHz; times are the frames' centres
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    top = spectra[0].max()
    for axis, title, decibels in zip(axes, ("reference", "estimate"), spectra, strict=True):
        image = axis.imshow(
            decibels,
            origin="lower",
            aspect="auto",
            extent=extent,
            vmin=top - 80,
            vmax=top,
            cmap="magma",
        )
        axis.set(title=title, ylabel="kHz")
    axes[-1].set_xlabel("seconds")
    figure.colorbar(image, ax=axes, label="dB")
    return figure


def _clip_name(item: Mapping[str, Any], index: int) -> str:
    """Folder and stem of the file: folders tell equal stems apart; a whole path would name the machine."""
    file = item.get("file")
    return "/".join(Path(file).with_suffix("").parts[-2:]) if file else f"clip{index:05d}"


def _write_audio(folder: Path, index: int, name: str, reference, estimate, sample_rate: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    safe = re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._-")[-60:] or "clip"
    for role, wav in (("reference", reference), ("decoded", estimate)):
        # clipping is what a sound card would do; NaN would become noise
        wav = np.clip(np.nan_to_num(wav, nan=0.0), -1, 1)
        soundfile.write(folder / f"{index:02d}_{safe}_{role}.wav", wav, sample_rate, subtype="PCM_16")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """NumPy scalars to Python's, floats to six significant digits, NaN and infinity to None, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _show(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _markdown_table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
