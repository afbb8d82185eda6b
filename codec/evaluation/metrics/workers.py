"""Scores of many clips, from processes that a crash inside a metric does not end.

PESQ's C code has a table of 50 utterances and takes the whole process with it (SIGSEGV) on clips that have more; a
library with weights may be killed for memory. So metrics run in spawned processes of their own, which import this file,
and what fails is a NaN with a reason.
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


def score_clips(
    pairs: Iterable[tuple[str, np.ndarray, np.ndarray]],
    sample_rate: int,
    metrics: Mapping[str, Metric] = METRICS,
    workers: int | None = None,
) -> tuple["pandas.DataFrame", list[dict[str, str]]]:
    """Score every (clip name, reference [T], estimate [T]): a table and what is missing from it.

    Returns one row per clip in the order of `pairs` (columns: clip, then the metrics), and a list of {clip,
    metric, reason} with one entry per NaN. A metric that raises, or kills its process, loses its own cell
    only.

    `workers` spawned processes with one thread each score one clip at a time, and `pairs` is read no faster
    than they finish, so it may be a generator that decodes: memory holds about `workers` clips. None is one
    process per core, at most 8; 0 scores in this process, which a crash in PESQ would end. As with every
    spawned process, a script needs its `if __name__ == "__main__":`, and what it imports at the top is
    imported by each worker.
    """
    import pandas

    workers = default_workers() if workers is None else workers
    clips: list[str] = []

    def arrays() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for clip, reference, estimate in pairs:
            reference, estimate = np.asarray(reference), np.asarray(estimate)
            if reference.shape != estimate.shape or reference.ndim != 1:
                shapes = f"{list(reference.shape)} and {list(estimate.shape)}"
                raise ValueError(f"Clip {clip}: both signals must be 1-D and of equal length, not {shapes}.")
            clips.append(clip)
            yield reference, estimate

    if workers and metrics:
        scored = _in_processes(arrays(), sample_rate, metrics, workers)
    else:
        scored = _here(arrays(), sample_rate, metrics)
    cells = {(index, name): (value, reason) for index, name, value, reason in scored}
    rows = [[clip, *(cells[index, name][0] for name in metrics)] for index, clip in enumerate(clips)]
    failures = [
        {"clip": clip, "metric": name, "reason": cells[index, name][1]}
        for index, clip in enumerate(clips)
        for name in metrics
        if cells[index, name][1] is not None
    ]
    return pandas.DataFrame(rows, columns=["clip", *metrics]).astype(dict.fromkeys(metrics, float)), failures


def default_workers() -> int:
    """One per core that this process may use, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores)


Cell = tuple[int, str, float, str | None]  # clip index, metric, value, reason where the value is NaN


def _score(metric: Metric, reference, estimate, sample_rate: int) -> tuple[float, str | None]:
    try:
        return finite(metric.name, metric.function(reference, estimate, sample_rate)), None
    except MetricError as error:
        return math.nan, str(error)
    except Exception as error:  # a metric is foreign code: it must not end an evaluation of an hour
        return math.nan, f"{type(error).__name__}: {error}"


def _here(arrays, sample_rate: int, metrics: Mapping[str, Metric]) -> Iterator[Cell]:
    for index, (reference, estimate) in enumerate(arrays):
        for name, metric in metrics.items():
            yield index, name, *_score(metric, reference, estimate, sample_rate)


def _in_processes(arrays, sample_rate: int, metrics: Mapping[str, Metric], workers: int) -> Iterator[Cell]:
    numbered = enumerate(arrays)
    crew = [_Worker(sample_rate, metrics) for _ in range(workers)]
    try:
        while True:
            for worker in (w for w in crew if not w.todo):
                index, signals = next(numbered, (None, None))
                if signals is None:
                    break
                worker.assign(index, signals)
            busy = {worker.pipe: worker for worker in crew if worker.todo}
            if not busy:
                return
            for pipe in connection.wait(list(busy)):
                yield from busy[pipe].collect()
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """One spawned process that scores one clip at a time and sends each value as soon as it has it.

    A standard pool loses every clip in flight when a process dies, and cannot tell which of them was to
    blame. Here the blame is exact: the metric whose value did not come. It is tried once more in a new
    process, as the first death may have been the machine's (out of memory); then its cell is given up and the
    rest of the clip is scored.
    """

    def __init__(self, sample_rate: int, metrics: Mapping[str, Metric]):
        self.sample_rate, self.metrics = sample_rate, metrics
        self.todo: list[str] = []  # metrics of the current clip whose values are still to come
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # fork would copy CUDA contexts and held locks
        self.pipe, theirs = context.Pipe()
        self.ready = False
        self.process = context.Process(
            target=_serve, args=(theirs, self.sample_rate, dict(self.metrics)), daemon=True, name="metrics"
        )
        with _one_thread_each(), _without_main():
            self.process.start()
        theirs.close()  # the child holds the only other end, so its death reads as end of file here

    def assign(self, index: int, signals: tuple[np.ndarray, np.ndarray]) -> None:
        self.index, self.signals, self.todo, self.deaths = index, signals, list(self.metrics), 0
        self._send()

    def _send(self) -> None:
        # A process that died while idle or starting is noticed by `collect`.
        with contextlib.suppress(OSError):
            self.pipe.send((*self.signals, self.todo))

    def collect(self) -> Iterator[Cell]:
        """Take one message of the process, or notice its death."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            yield from self._died()
            return
        if message == "ready":
            self.ready = True
            return
        name, value, reason = message
        self.todo.remove(name)
        self.deaths = 0
        yield self.index, name, value, reason

    def _died(self) -> Iterator[Cell]:
        self.stop()
        code = self.process.exitcode
        cause = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if not self.ready:
            raise RuntimeError(
                f"A metric process died while starting ({cause}); its error stands above. The script needs "
                'its if __name__ == "__main__": guard, and the metrics must be importable by name.'
            )
        self.deaths += 1
        if self.deaths == 2:
            self.deaths = 0
            yield self.index, self.todo.pop(0), math.nan, f"The metric killed its process ({cause})."
        self._start()
        if self.todo:
            self._send()

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _serve(pipe: connection.Connection, sample_rate: int, metrics: Mapping[str, Metric]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which stops its workers
    pipe.send("ready")
    with contextlib.suppress(EOFError, OSError):  # the parent has gone: so may we
        while True:
            reference, estimate, names = pipe.recv()
            for name in names:
                pipe.send((name, *_score(metrics[name], reference, estimate, sample_rate)))


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Spawn processes that do not run the main script again: a trainer's imports cost seconds and a gigabyte each."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    main.__file__, main.__spec__ = None, None
    try:
        yield
    finally:
        main.__file__, main.__spec__ = file, spec


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """One thread per process started within: BLAS and torch read these variables once, on import."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
