"""A system on held-out clips -> its report, and sound to listen to."""

import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import soundfile
import torch

from codec.evaluation.baselines.base import System, reconstruct_at
from codec.evaluation.metrics.base import Metric
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.metrics.workers import default_workers, score_clips
from codec.evaluation.report import Report
from codec.evaluation.report_schema import ABOUT_CLIP
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
    """Run a system over clips, one by one, and score it while it runs.

    Args:
        clips: items with ``wav`` ``[1, T]`` in [-1, 1] at ``sample_rate``, and ``file`` and ``speaker`` where known. A
            system of another rate gets them resampled, and is scored at theirs.
        facts: what to say besides the system's own facts.
        name: of the system, in the names of audio files.
        workers: processes for the metrics, see :func:`codec.evaluation.metrics.workers.score_clips`.
        folder: of the report, where ``audio/NN_clip_reference.flac`` and ``audio/NN_clip_NAME.flac`` (16 bits) of the
            first ``audio`` clips are written; None: nowhere.
        unread: lists of (file, reason) of what could not be read, which may grow while ``clips`` are: failures, too.

    A clip on which the system raises is listed as a failure and has no scores.

    Raises:
        ValueError: if there is no clip, a wav is not ``[1, T]``, or the system returns another length than it got.
    """
    rows: list[dict[str, Any]] = []
    scored: list[int] = []  # the rows that have a reconstruction
    failures: list[dict[str, str]] = []
    sound: dict[str, dict[str, str]] = {}

    def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for index, item in enumerate(clips):
            wav, clip = item["wav"], clip_name(item, index, {row["clip"] for row in rows})
            if wav.ndim != 2 or wav.shape[0] != 1:
                raise ValueError(f"Clip {clip}: wav must be [1, T] (mono), not {list(wav.shape)}.")
            rows.append({"clip": clip, "speaker": item.get("speaker"), "seconds": wav.shape[-1] / sample_rate})
            try:
                decoded = reconstruct_at(system, wav[None], sample_rate)
            except Exception as error:  # one odd clip must not end an evaluation of an hour
                failures.append({"clip": clip, "metric": "system", "reason": f"{type(error).__name__}: {error}"})
                continue
            if decoded.shape != wav[None].shape:
                shapes = f"{list(wav[None].shape)} became {list(decoded.shape)}"
                raise ValueError(f"Clip {clip}: a system must return the length it was given; {shapes}.")
            reference, estimate = (x.detach().float().cpu().numpy().reshape(-1) for x in (wav, decoded))
            if folder is not None and index < audio:
                signals = {"reference": ("reference", reference), "decoded": (name, estimate)}
                where = Path(folder), index, clip
                sound[clip] = {role: write_audio(*where, *signal, sample_rate) for role, signal in signals.items()}
            scored.append(index)
            yield clip, reference, estimate

    workers = default_workers() if workers is None else workers
    with _leaving_cores_to(workers):
        scores, missing = score_clips(pairs(), sample_rate, metrics, workers)
    if not rows:
        raise ValueError("There is no clip to evaluate.")
    scores.index = scored
    table = pandas.DataFrame(rows, columns=list(ABOUT_CLIP)).join(scores.drop(columns="clip"))
    known = {"sample_rate": sample_rate, **(facts or {}), **system.facts()}
    known |= {"clips": len(table), "seconds": float(table["seconds"].sum())}
    files = [{"clip": file, "metric": "file", "reason": reason} for part in unread for file, reason in part]
    return Report(table, failures + missing + files, known, sound)


@contextmanager
def _leaving_cores_to(workers: int) -> Iterator[None]:
    """As many threads fewer for torch here: threads that wait for each other keep a core busy that a worker needs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - workers))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def clip_name(item: Mapping[str, Any], index: int, taken: Collection[str] = ()) -> str:
    """Folder and stem of the file, and a number where that is taken; a whole path would name the machine."""
    file = item.get("file")
    stem = re.sub(r"\.(wav|flac|ogg|opus|mp3)$", "", str(file), flags=re.IGNORECASE)
    name = "/".join(Path(stem).parts[-2:]) if file else f"clip{index:05d}"
    return f"{name} ({index})" if name in taken else name


def file_name(text: str) -> str:
    """Text as part of a file's name, at most 80 characters; a longer one keeps its end and gets a checksum."""
    name = re.sub(r"[^A-Za-z0-9.+=-]+", "_", text).strip("._-") or "clip"
    return name if len(name) <= 80 else f"{zlib.crc32(text.encode()):08x}_{name[-71:]}"


def write_audio(folder: Path, index: int, clip: str, role: str, wav: np.ndarray, sample_rate: int) -> str:
    """Write ``folder``/audio/NN_clip_role.flac -> its path from ``folder``."""
    file = f"audio/{index:02d}_{file_name(clip)}_{file_name(role)}.flac"
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    # clipping is what a sound card would do; NaN would become noise
    soundfile.write(folder / file, np.clip(np.nan_to_num(wav, nan=0.0), -1, 1), sample_rate, subtype="PCM_16")
    return file


def check_evaluation(cfg: Any) -> None:
    """Find out before the first clip what would end an evaluation later.

    Raises:
        InputError: if there is no such split, or a number of clips or processes is none.
    """
    if cfg.split not in ("train", "val", "test"):
        raise InputError(f"split={cfg.split}: choose train, val or test")
    if cfg.clips is not None and cfg.clips < 1:
        raise InputError(f"clips={cfg.clips}: give a number from 1, or null for all")
    if cfg.workers is not None and cfg.workers < 0:
        raise InputError(f"workers={cfg.workers}: give a number of processes, 0 for none, or null for one per core")
    if cfg.listening > cfg.audio:
        raise InputError(f"listening={cfg.listening} clips need sound of as many: raise audio={cfg.audio}")
