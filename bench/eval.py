"""An evaluation: clips through the codec and all default metrics, in wall time, CPU time and memory. JSON.

    python bench/eval.py                        # 40 clips of 6 s of generated speech, the default codec, 3 repeats
    python bench/eval.py --data DIR --model mimi_transformer --clips 120
    python bench/eval.py --model none           # the metrics alone

The codec has random weights, whose output is discarded: metrics, whose time depends on the signal, get the recording
with white noise at 20 dB SNR.

Each repeat is a process of its own, as a call of eval.py is. `wall_s` is the time of `codec.evaluation.evaluate`,
start and end of the metrics' processes included, `process_s` that of the whole process. `cpu_s` is of all processes.
`peak_mb` is the peak memory of the parent, and of the largest of the metrics' processes until the last clip was decoded
(Linux only). `metric_cpu_ms` is the CPU time of each metric per clip, in the order of the table, in one process and
thread; of two metrics that share a computation the first pays for it.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.common import built, composed, machine, parser, peak_mb, show
from codec.data.espeak import EspeakCorpus
from codec.data.folder import FolderCorpus
from codec.evaluation.baselines.base import System
from codec.evaluation.baselines.codec import CodecSystem
from codec.evaluation.evaluate import evaluate
from codec.evaluation.metrics.base import Metric
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.metrics.workers import score_clips
from codec.model import Codec

SNR = 20.0  # dB


class Noisy(System):
    """The recording with white noise at 20 dB SNR, after the codec, if any, has run."""

    def __init__(self, codec: Codec | None):
        self.inner = None if codec is None else CodecSystem(codec)
        self.random = torch.Generator().manual_seed(0)

    def reconstruct(self, wav: torch.Tensor, sample_rate: int) -> torch.Tensor:
        self.peaks = [0.0, *(peak_mb(child.pid) for child in multiprocessing.active_children())]
        if self.inner is not None:
            self.inner.reconstruct(wav, sample_rate)
        noise = torch.randn(wav.shape, generator=self.random)
        return wav + noise * wav.square().mean().sqrt() * 10 ** (-SNR / 20)


def speech(data: str | None, sample_rate: int, count: int, seconds: float) -> list[dict[str, Any]]:
    """`count` clips of exactly `seconds`, cut from concatenated recordings."""
    corpus = FolderCorpus(data, sample_rate, holdout=1) if data else EspeakCorpus(sample_rate, holdout=1)
    samples, left, clips = int(seconds * sample_rate), torch.zeros(1, 0), []
    recordings = corpus.clips("test")
    for index in range(len(recordings)):
        left = torch.cat([left, recordings[index]["wav"]], dim=-1)
        while left.shape[-1] >= samples:
            clips.append({"wav": left[:, :samples].clone()})
            left = left[:, samples:]
            if len(clips) == count:
                return clips
    raise SystemExit(f"there are only {len(clips)} clips of {seconds} s")


def prepare(options: argparse.Namespace) -> tuple[Codec | None, int, list[dict[str, Any]]]:
    codec, rate = None, 16_000
    if options.model != "none":
        cfg = composed(f"model={options.model}")
        codec, rate = built(cfg.codec), cfg.sample_rate
    return codec, rate, speech(options.data, rate, options.clips, options.seconds)


def one(options: argparse.Namespace) -> dict[str, Any]:
    codec, rate, clips = prepare(options)
    before, start, system = cpu_seconds(), time.perf_counter(), Noisy(codec)
    report = evaluate(system, clips, rate, workers=options.workers)
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": cpu_seconds() - before,
        "parent_peak_mb": peak_mb(),
        "worker_peak_mb": max(system.peaks),
        "failures": len(report.failures),
        "means": {name: report.summary()[name]["mean"] for name in report.metrics},
    }


def cpu_seconds() -> float:
    """Of this process and those of its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def per_metric(options: argparse.Namespace) -> dict[str, float]:
    """metric -> milliseconds of CPU time per clip (median over the clips)."""
    _, rate, clips = prepare(options)
    system, seconds = Noisy(None), defaultdict(list)

    def timed(name: str, metric: Metric) -> Metric:
        def function(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
            start = time.process_time()
            try:
                return metric.function(reference, estimate, sample_rate)
            finally:
                seconds[name].append(time.process_time() - start)

        return dataclasses.replace(metric, function=function)

    pairs = ((str(i), c["wav"][0].numpy(), system.reconstruct(c["wav"], rate)[0].numpy()) for i, c in enumerate(clips))
    score_clips(pairs, rate, {name: timed(name, metric) for name, metric in METRICS.items()}, workers=0)
    return {name: round(1000 * statistics.median(values), 1) for name, values in seconds.items()}


def call(case: str, **environment: str) -> tuple[dict[str, Any], float]:
    """One case in a process of its own -> its JSON and the seconds it took."""
    start = time.perf_counter()
    command = [sys.executable, __file__, *sys.argv[1:], "--only", case]
    done = subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout), time.perf_counter() - start


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--data", help="folder of recordings; default: generated speech")
    arguments.add_argument("--model", default="soundstream_tiny", help="a preset, or none")
    arguments.add_argument("--clips", type=int, default=40)
    arguments.add_argument("--seconds", type=float, default=6.0)
    arguments.add_argument("--workers", type=int, default=None, help="processes for the metrics; default: one per core")
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--only", choices=["one", "per_metric"], help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.only:
        show({"one": one, "per_metric": per_metric}[options.only](options))
        return
    prepare(options)  # generates the speech, or the index of a folder
    runs = []
    for _ in range(options.repeats):
        run, seconds = call("one")
        runs.append(run | {"process_s": seconds})
    metrics, _ = call("per_metric", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    names = ("wall_s", "process_s", "cpu_s", "parent_peak_mb", "worker_peak_mb")
    median = {name: round(statistics.median(run[name] for run in runs), 1) for name in names}
    result = {"median": median, "wall_s": [round(run["wall_s"], 1) for run in runs], "metric_cpu_ms": metrics}
    show(machine() | vars(options) | result | {name: runs[0][name] for name in ("failures", "means")})


if __name__ == "__main__":
    main()
