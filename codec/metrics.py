"""Objective metrics of decoded speech against its original, and the processes that compute them.

A metric is a function `(reference [T], estimate [T], sample_rate in Hz) -> float` on two 1-D float arrays in
[-1, 1]. It raises `ValueError` where the caller is wrong (unequal lengths) and `MetricError` where the audio
has no score (silence, NaN, too short), because the libraries below answer those cases with a plausible wrong
number, or with a crash. `score_clips` therefore runs the metrics in processes of its own: PESQ's C code has a
table of 50 utterances and takes the whole process with it (SIGSEGV) on clips that have more.

This module imports neither torch nor pandas at the top: a worker process imports it, and would pay 2 s for
them.
"""

import contextlib
import functools
import math
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pystoi
import scipy.fft
import soxr
from pesq import NoUtterancesError, PesqError, pesq

if TYPE_CHECKING:
    import pandas

SILENCE = 2.0**-15  # peak to peak: a signal that stays within one 16-bit step is silent
PESQ_PIECE = 20.0  # seconds; an utterance and its pause last 0.4 s or more, so PESQ finds 50 at most
PESQ_SHORTEST = 0.3  # seconds; the ITU code refuses less than 0.25 s
STOI_SHORTEST = 0.4  # seconds; one STOI segment of 30 frames, hop 12.8 ms
MEL_SCALES = tuple((2**k, 5 * 2 ** (k - 5)) for k in range(5, 12))  # (32 samples, 5 bands) ... (2048, 320)


class MetricError(Exception):
    """This audio has no score in this metric; the message is a sentence for the report."""


# ------------------------------------------------------------------------------------------------ the metrics


def pesq_wb(reference, estimate, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2, 2007), MOS-LQO in [1.0, 4.64], higher is better.

    Both signals are resampled to 16 kHz; nothing above 8 kHz is heard. Clips over 20 s are scored in equal
    pieces of at most 20 s and averaged by length, leaving out the pieces in which the reference is silent.
    """
    return _pesq(reference, estimate, sample_rate, 16_000, "wb")


def pesq_nb(reference, estimate, sample_rate: int) -> float:
    """Narrow-band PESQ (ITU-T P.862, 2001, and P.862.1, 2003), MOS-LQO in [1.0, 4.55], higher is better.

    Both signals are resampled to 8 kHz, the rate of the telephone band that P.862 models. The package takes
    16 kHz in this mode as well and then answers differently (by 0.06 on its own example), so a number from a
    paper that states no rate compares only roughly. Long clips as in `pesq_wb`.
    """
    return _pesq(reference, estimate, sample_rate, 8_000, "nb")


def stoi(reference, estimate, sample_rate: int) -> float:
    """Short-time objective intelligibility (Taal et al., IEEE TASLP 2011), in [-1, 1], higher is better.

    A correlation of envelopes in 15 third-octave bands, at 10 kHz (resampled inside pystoi, as the authors
    do). Needs 0.4 s of speech after the frames 40 dB under the loudest are removed.
    """
    return _stoi(reference, estimate, sample_rate, extended=False)


def estoi(reference, estimate, sample_rate: int) -> float:
    """Extended STOI (Jensen and Taal, IEEE/ACM TASLP 2016), in [-1, 1], higher is better; stricter than STOI.

    Correlates whole spectro-temporal segments at 10 kHz, hence also hears modulated noise. Needs 0.4 s of
    speech.
    """
    return _stoi(reference, estimate, sample_rate, extended=True)


def si_sdr(reference, estimate, sample_rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al., ICASSP 2019, arXiv 1811.02508), in dB,
    higher is better, at the given rate.

    Both means are removed, then 10 log10(|a r|^2 / |e - a r|^2) with a = <e, r> / <r, r>. Limited to +-156 dB
    (float64 precision), so that identity is a number. It compares waveforms: a generative codec that sounds
    right with other phases scores near or under 0 dB.
    """
    reference, estimate = _pair(reference, estimate)
    _refuse_silence(reference, estimate)
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    distortion = estimate - target
    floor = np.finfo(np.float64).eps * (estimate @ estimate)
    return float(10 * np.log10((target @ target + floor) / (distortion @ distortion + floor)))


def mel_distance(reference, estimate, sample_rate: int) -> float:
    """Multi-scale log-mel distance of DAC (Kumar et al., NeurIPS 2023, arXiv 2306.06546), its reconstruction
    loss, in log10 units in [0, inf), lower is better, at the given rate (so compare at equal rates only).

    Sum over 7 windows (32 to 2048 samples; 5 to 320 bands; hop a quarter) of the mean L1 between log10 mel
    magnitudes clamped at 1e-5; Slaney's mel bands up to half the rate; frames centred with reflection.
    Silence has a score here.
    """
    reference, estimate = _pair(reference, estimate)
    longest = MEL_SCALES[-1][0]
    if len(reference) < longest:
        raise MetricError(f"The mel distance needs {longest} samples; this clip has {len(reference)}.")
    distance = 0.0
    for window, n_mels in MEL_SCALES:
        filters = _mel_filters(sample_rate, window, n_mels)
        distance += float(np.mean(np.abs(_log_mel(reference, filters) - _log_mel(estimate, filters))))
    return distance


@dataclass(frozen=True)
class Metric:
    """A metric function with what a table has to say about it. `unit` is empty for a bare number."""

    name: str
    function: Callable[[np.ndarray, np.ndarray, int], float]
    unit: str
    higher_is_better: bool


METRICS = {
    "pesq_wb": Metric("PESQ-WB", pesq_wb, "MOS-LQO", True),
    "pesq_nb": Metric("PESQ-NB", pesq_nb, "MOS-LQO", True),
    "stoi": Metric("STOI", stoi, "", True),
    "estoi": Metric("ESTOI", estoi, "", True),
    "si_sdr": Metric("SI-SDR", si_sdr, "dB", True),
    "mel_distance": Metric("Mel distance", mel_distance, "log10", False),
}


def _pair(reference, estimate) -> tuple[np.ndarray, np.ndarray]:
    """Both signals as finite float64 arrays [T] of one length."""
    reference, estimate = np.asarray(reference, dtype=np.float64), np.asarray(estimate, dtype=np.float64)
    if reference.ndim != 1 or reference.shape != estimate.shape:
        shapes = f"{list(reference.shape)} and {list(estimate.shape)}"
        raise ValueError(f"Reference and estimate must be 1-D and of equal length; they are {shapes}.")
    for role, signal_ in (("reference", reference), ("estimate", estimate)):
        if not len(signal_):
            raise MetricError(f"The {role} is empty.")
        if not np.isfinite(signal_).all():
            raise MetricError(f"The {role} has samples that are not finite.")
    return reference, estimate


def _refuse_silence(reference: np.ndarray, estimate: np.ndarray) -> None:
    for role, signal_ in (("reference", reference), ("estimate", estimate)):
        if np.ptp(signal_) < SILENCE:
            raise MetricError(f"The {role} is silent.")


def _refuse_short(name: str, signal_: np.ndarray, sample_rate: int, shortest: float) -> None:
    seconds = len(signal_) / sample_rate
    if seconds < shortest:
        raise MetricError(f"{name} needs {shortest} s or more; this clip has {seconds:.2f} s.")


def _pesq(reference, estimate, sample_rate: int, rate: int, mode: str) -> float:
    reference, estimate = _pair(reference, estimate)
    _refuse_silence(reference, estimate)
    _refuse_short("PESQ", reference, sample_rate, PESQ_SHORTEST)
    reference, estimate = (
        soxr.resample(reference, sample_rate, rate),
        soxr.resample(estimate, sample_rate, rate),
    )
    pieces = math.ceil(len(reference) / (PESQ_PIECE * rate))
    scores, weights = [], []
    for r, e in zip(np.array_split(reference, pieces), np.array_split(estimate, pieces), strict=True):
        if np.ptp(r) < SILENCE:
            continue
        if np.ptp(e) < SILENCE:
            raise MetricError("The estimate is silent for a whole piece in which the reference is not.")
        try:
            scores.append(pesq(rate, r, e, mode))
        except NoUtterancesError:
            continue
        except PesqError as error:
            text = error.args[0] if error.args else error
            raise MetricError(f"PESQ: {text.decode() if isinstance(text, bytes) else text}.") from error
        weights.append(len(r))
    if not scores:
        raise MetricError("PESQ finds no utterance in this clip.")
    return _finite("PESQ", np.average(scores, weights=weights))


def _stoi(reference, estimate, sample_rate: int, extended: bool) -> float:
    name = "ESTOI" if extended else "STOI"
    reference, estimate = _pair(reference, estimate)
    _refuse_silence(reference, estimate)
    _refuse_short(name, reference, sample_rate, STOI_SHORTEST)
    # pystoi's ESTOI adds noise from NumPy's global generator: fixed so that runs repeat, then restored
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            # pystoi warns and returns 1e-5 where it has no answer
            warnings.filterwarnings("error", message="Not enough STFT frames", category=RuntimeWarning)
            value = pystoi.stoi(reference, estimate, int(sample_rate), extended=extended)
    except RuntimeWarning as warning:
        raise MetricError(
            f"{name} needs {STOI_SHORTEST} s of speech that is not silent; this clip has less."
        ) from warning
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return _finite(name, value)


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise MetricError(f"{name} returned {value}.")
    return float(value)


@functools.lru_cache(maxsize=64)
def _mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> np.ndarray:
    """Slaney's triangular mel bands of equal area, 0 Hz to half the rate: [n_mels, n_fft // 2 + 1] float32.

    Equal to `librosa.filters.mel`, which DAC uses; written out because librosa takes seconds to import.
    """
    top = sample_rate / 2
    # Slaney's scale: linear (3 mel per 200 Hz) to 1 kHz, then 27 mel per factor 6.4
    top_mel = top * 3 / 200 if top < 1000 else 15 + 27 * math.log(top / 1000) / math.log(6.4)
    mels = np.linspace(0, top_mel, n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))  # Hz
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.linspace(0, top, n_fft // 2 + 1)
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(0, triangles) * 2 / (high - low)).astype(np.float32)


def _log_mel(wav: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """wav [T] -> log10 mel magnitudes [F, n_mels], Hann window (periodic), hop a quarter of the window."""
    window = 2 * (filters.shape[1] - 1)
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    padded = np.pad(wav.astype(np.float32), window // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]  # [F, window]
    magnitude = np.abs(scipy.fft.rfft(frames * hann, axis=-1))
    return np.log10(np.maximum(magnitude @ filters.T, 1e-5))


# ----------------------------------------------------------------------------------------------- many clips


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

    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = min(8, cores)
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


Cell = tuple[int, str, float, str | None]  # clip index, metric, value, reason where the value is NaN


def _score(metric: Metric, reference, estimate, sample_rate: int) -> tuple[float, str | None]:
    try:
        return _finite(metric.name, metric.function(reference, estimate, sample_rate)), None
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


# -------------------------------------------------------------------------------------------------- intervals


class Interval(NamedTuple):
    """A mean over `n` clips with its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap(values, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean and 95 % percentile bootstrap interval over clips (Efron and Tibshirani 1993, chapter 13).

    NaN are left out; `n` counts what remains, and without any all three numbers are NaN. Clips count as
    independent, so the interval is too narrow for other speakers when few speakers said many clips.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    n = len(values)
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    generator = np.random.default_rng(seed)
    block = max(1, 1_000_000 // n)  # resamples at a time, to bound memory
    means = [
        values[generator.integers(n, size=(min(block, resamples - start), n))].mean(axis=1)
        for start in range(0, resamples, block)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Interval(float(values.mean()), float(low), float(high), n)
