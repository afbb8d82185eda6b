"""Evaluation of a system on held-out clips: scores, failures, and audio of the first clips."""

import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from codec.evaluation.baselines.base import System, reconstruct_at
from codec.evaluation.metrics.base import Metric
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.metrics.workers import default_workers, score_clips
from codec.evaluation.report import Report
from codec.evaluation.report_schema import CLIP_COLUMNS
from codec.utils.errors import InputError


def evaluate(
    system: System,
    clips: Iterable[Mapping[str, Any]],
    sample_rate: int,
    facts: Mapping[str, Any] | None = None,
    name: str = "decoded",
    workers: int | None = None,
    metrics: Mapping[str, Metric] = METRICS,
    folder: str | Path | None = None,
    audio: int = 8,
    unread: Iterable[Sequence[tuple[str, str]]] = (),
) -> Report:
    """Run a system over clips one by one, while worker processes score those that are done.

    A clip on which the system raises becomes a failure without scores. Raises ValueError if there is no clip, a wav is
    not ``[1, T]``, or the system changes the length.

    Args:
        clips: items with ``wav`` ``[1, T]`` in [-1, 1] at ``sample_rate`` Hz, and ``file`` and ``speaker`` if known.
            They are resampled for a system of another rate, and scored at ``sample_rate``.
        facts: added to ``system.facts()`` in the report.
        name: of the system, in the names of audio files.
        workers: processes for the metrics, see :func:`codec.evaluation.metrics.workers.score_clips`.
        folder: where ``audio/NN_clip_reference.flac`` and ``audio/NN_clip_NAME.flac`` (16 bits) of the first ``audio``
            clips are written; None: no audio.
        unread: lists of (file, reason) that become failures; they may grow while ``clips`` are read.
    """
    import pandas

    run = _Run(system, sample_rate, name, Path(folder) if folder is not None else None, audio)
    workers = default_workers() if workers is None else workers
    with _fewer_threads(workers):
        scores, unscored = score_clips(run.pairs(clips), sample_rate, metrics, workers)
    if not run.rows:
        raise ValueError("There is no clip to evaluate.")
    scores.index = run.decoded
    table = pandas.DataFrame(run.rows, columns=list(CLIP_COLUMNS)).join(scores.drop(columns="clip"))
    known = {"sample_rate": sample_rate, **(facts or {}), **system.facts()}
    known |= {"clips": len(table), "seconds": float(table["seconds"].sum())}
    known["speakers"] = table["speaker"].mask(table["speaker"] == "").nunique() or None  # None: unknown
    unread = [{"clip": file, "metric": "file", "reason": reason} for part in unread for file, reason in part]
    return Report(table, run.failures + unscored + unread, known, run.audio)


class _Run:
    """One pass of a system over clips; ``decoded``: indices of the rows that have a reconstruction."""

    def __init__(self, system: System, sample_rate: int, name: str, folder: Path | None, audio: int):
        self.system, self.sample_rate = system, sample_rate
        self.name, self.folder, self.audio_clips = name, folder, audio
        self.rows: list[dict[str, Any]] = []
        self.decoded: list[int] = []
        self.failures: list[dict[str, str]] = []
        self.audio: dict[str, dict[str, str]] = {}

    def pairs(self, clips: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """(clip, reference, estimate) of the clips on which the system does not raise."""
        for index, item in enumerate(clips):
            wav, clip = item["wav"], clip_name(item, index, {row["clip"] for row in self.rows})
            if wav.ndim != 2 or wav.shape[0] != 1:
                raise ValueError(f"Clip {clip}: wav must be [1, T] (mono), not {list(wav.shape)}.")
            seconds = wav.shape[-1] / self.sample_rate
            self.rows.append({"clip": clip, "speaker": item.get("speaker"), "seconds": seconds})
            try:
                decoded = reconstruct_at(self.system, wav[None], self.sample_rate)
            except Exception as error:  # one clip must not end an evaluation of an hour
                self.failures.append({"clip": clip, "metric": "system", "reason": f"{type(error).__name__}: {error}"})
                continue
            if decoded.shape != wav[None].shape:
                shapes = f"{list(wav[None].shape)} became {list(decoded.shape)}"
                raise ValueError(f"Clip {clip}: a system must return the length it was given; {shapes}.")
            reference, estimate = (x.detach().float().cpu().numpy().reshape(-1) for x in (wav, decoded))
            if self.folder is not None and index < self.audio_clips:
                signals = {"reference": ("reference", reference), "decoded": (self.name, estimate)}
                self.audio[clip] = {
                    role: write_audio(self.folder, index, clip, label, signal, self.sample_rate)
                    for role, (label, signal) in signals.items()
                }
            self.decoded.append(index)
            yield clip, reference, estimate


@contextmanager
def _fewer_threads(workers: int) -> Iterator[None]:
    """Reserves ``workers`` of torch's threads: threads that wait for each other block a core that a worker needs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def clip_name(item: Mapping[str, Any], index: int, taken: Collection[str] = ()) -> str:
    """Folder and stem of the file, with the index if taken; no absolute path, which would identify the machine."""
    file = item.get("file")
    stem = re.sub(r"\.(wav|flac|ogg|opus|mp3)$", "", str(file), flags=re.IGNORECASE)
    name = "/".join(Path(stem).parts[-2:]) if file else f"clip{index:05d}"
    return f"{name} ({index})" if name in taken else name


def file_name(text: str) -> str:
    """Text as part of a file name, at most 80 characters; a longer one becomes a checksum and its end."""
    name = re.sub(r"[^A-Za-z0-9.+=-]+", "_", text).strip("._-") or "clip"
    return name if len(name) <= 80 else f"{zlib.crc32(text.encode()):08x}_{name[-71:]}"


def write_audio(folder: Path, index: int, clip: str, label: str, wav: np.ndarray, sample_rate: int) -> str:
    """Write wav ``[T]`` to ``folder``/audio/NN_clip_label.flac (16 bits) -> its path relative to ``folder``."""
    file = f"audio/{index:02d}_{file_name(clip)}_{file_name(label)}.flac"
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    # clipped as a sound card would; NaN would become noise
    soundfile.write(folder / file, np.clip(np.nan_to_num(wav, nan=0.0), -1, 1), sample_rate, subtype="PCM_16")
    return file


def check_evaluation(cfg: Any) -> None:
    """Raises InputError for options of eval.py that would fail after the first clip."""
    if cfg.split not in ("train", "val", "test"):
        raise InputError(f"split={cfg.split}: choose train, val or test")
    if cfg.clips is not None and cfg.clips < 1:
        raise InputError(f"clips={cfg.clips}: give a number from 1, or null for all")
    if cfg.workers is not None and cfg.workers < 0:
        raise InputError(f"workers={cfg.workers}: give a number of processes, 0 for none, or null for one per core")
    if cfg.listening > cfg.audio:
        raise InputError(f"listening={cfg.listening} clips need sound of as many: raise audio={cfg.audio}")
