"""Scores of many clips, from spawned worker processes that a metric may crash.

PESQ's C code ends its process (SIGSEGV) on clips of more than 50 utterances; a library with weights may be killed for
memory. A failure is a NaN with a reason.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing import connection
from typing import TYPE_CHECKING

import numpy as np

from codec.evaluation.metrics.base import Metric, MetricError, finite
from codec.evaluation.metrics.table import METRICS

if TYPE_CHECKING:
    import pandas

Score = tuple[float, str | None]  # value, reason where it is NaN
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def score_clips(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    sample_rate: int,
    metrics: Mapping[str, Metric] = METRICS,
    workers: int | None = None,
) -> tuple["pandas.DataFrame", list[dict[str, str]]]:
    """Score (clip name, reference [T], estimate [T]) tuples -> a table of scores, and a list of those missing.

    The table has a row per clip, in order (columns: clip, then the metrics), the list a {clip, metric, reason} per NaN.
    A metric that raises, or kills its process, loses its own cell only.

    `workers` single-threaded processes score one clip each; `pairs` is read as they finish and may be a generator that
    decodes: memory holds about `workers` clips. None: a process per core, at most 8; 0: this process, which a crash in
    PESQ would end.
    """
    import pandas

    workers = default_workers() if workers is None else workers
    clips: list[str] = []

    def signals() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for clip, reference, estimate in pairs:
            reference, estimate = np.asarray(reference), np.asarray(estimate)
            if reference.shape != estimate.shape or reference.ndim != 1:
                shapes = f"{list(reference.shape)} and {list(estimate.shape)}"
                raise ValueError(f"Clip {clip}: both signals must be 1-D and of equal length, not {shapes}.")
            clips.append(clip)
            yield reference, estimate

    if workers and metrics:
        scores = _in_processes(signals(), sample_rate, metrics, workers)
    else:
        scores = [{name: _score(m, *pair, sample_rate) for name, m in metrics.items()} for pair in signals()]
    values = [[clip, *(row[name][0] for name in metrics)] for clip, row in zip(clips, scores, strict=True)]
    failures = [
        {"clip": clip, "metric": name, "reason": row[name][1]}
        for clip, row in zip(clips, scores, strict=True)
        for name in metrics
        if row[name][1] is not None
    ]
    return pandas.DataFrame(values, columns=["clip", *metrics]).astype(dict.fromkeys(metrics, float)), failures


def default_workers() -> int:
    """Default number of worker processes: one per core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


def _score(metric: Metric, reference, estimate, sample_rate: int) -> Score:
    try:
        return finite(metric.name, metric.function(reference, estimate, sample_rate)), None
    except MetricError as error:
        return math.nan, str(error)
    except Exception as error:  # a metric is foreign code: it must not end an evaluation of an hour
        return math.nan, f"{type(error).__name__}: {error}"


def _in_processes(
    signals: Iterator[tuple[np.ndarray, np.ndarray]], sample_rate: int, metrics: Mapping[str, Metric], workers: int
) -> list[dict[str, Score]]:
    scores: list[dict[str, Score]] = []
    crew = [_Worker(sample_rate, metrics) for _ in range(workers)]
    try:
        while True:
            for worker in crew:
                if not worker.todo and (pair := next(signals, None)) is not None:
                    scores.append({})
                    worker.assign(pair, scores[-1])
            busy = {worker.pipe: worker for worker in crew if worker.todo}
            if not busy:
                return scores
            for pipe in connection.wait(list(busy)):
                busy[pipe].receive()
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """A spawned process that sends each value at once: a crash identifies its metric, which is tried once more."""

    def __init__(self, sample_rate: int, metrics: Mapping[str, Metric]):
        self.sample_rate, self.metrics = sample_rate, dict(metrics)
        self.todo: list[str] = []  # metrics of the current clip whose values are still to come
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy CUDA contexts and held locks
        self.pipe, theirs = context.Pipe()
        self.ready = False
        args = (theirs, self.sample_rate, self.metrics)
        self.process = context.Process(target=_serve, args=args, daemon=True, name="metrics")
        with _light_children():
            self.process.start()
        theirs.close()  # the child holds the only other end, so its death reads as end of file here

    def assign(self, signals: tuple[np.ndarray, np.ndarray], scores: dict[str, Score]) -> None:
        """Score a clip into `scores`."""
        self.signals, self.scores, self.todo, self.deaths = signals, scores, list(self.metrics), 0
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # `receive` notices a process that has died
            self.pipe.send((*self.signals, self.todo))

    def receive(self) -> None:
        """Receive one message of the process, or replace it if it has died."""
        try:
            name, score = self.pipe.recv()
        except (EOFError, OSError):
            return self._replace()
        self.ready = True
        if name in self.todo:
            self.todo.remove(name)
            self.scores[name], self.deaths = score, 0

    def _replace(self) -> None:
        self.stop()
        code = self.process.exitcode
        cause = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if not self.ready:
            raise RuntimeError(
                f"A metric process died while starting ({cause}); its error stands above. The metrics must be "
                "importable by name."
            )
        self.deaths += 1
        if self.deaths == 2:  # the first death may have been the machine's (out of memory)
            self.deaths = 0
            self.scores[self.todo.pop(0)] = math.nan, f"The metric killed its process ({cause})."
        self._start()
        if self.todo:
            self._send()

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _serve(pipe: connection.Connection, sample_rate: int, metrics: Mapping[str, Metric]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its workers
    pipe.send(("", None))  # ready
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        while True:
            reference, estimate, names = pipe.recv()
            for name in names:
                pipe.send((name, _score(metrics[name], reference, estimate, sample_rate)))


@contextlib.contextmanager
def _light_children() -> Iterator[None]:
    """Start processes with one BLAS and torch thread each, without the main script's imports (seconds, a gigabyte)."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    before = {name: os.environ[name] for name in THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    main.__file__, main.__spec__ = None, None
    try:
        yield
    finally:
        main.__file__, main.__spec__ = file, spec
        for name in THREADS:
            del os.environ[name]
        os.environ.update(before)
