"""The processes that compute metrics: they agree with this one, and survive what kills them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import pytest

from codec.evaluation.metrics.base import Metric
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.metrics.workers import score_clips
from tests.helpers.metric_functions import kill_first_time, kill_on_loud, late_if_first, threads
from tests.helpers.signals import RATE, noisy, speech


def as_metric(function) -> Metric:
    return Metric(function.__name__, function, "", True)


def test_processes_agree_with_this_process_and_list_what_failed():
    wavs = [speech(2.0, seed=seed) for seed in range(3)]
    pairs = [(f"clip{i}", wav, noisy(wav, 10).astype(np.float32)) for i, wav in enumerate(wavs)]
    pairs.insert(1, ("silent", wavs[0], np.zeros_like(wavs[0])))
    here, here_failures = score_clips(iter(pairs), RATE, workers=0)
    there, there_failures = score_clips(iter(pairs), RATE, workers=2)
    assert list(here.columns) == ["clip", *METRICS]
    assert list(here["clip"]) == ["clip0", "silent", "clip1", "clip2"]
    pandas.testing.assert_frame_equal(here, there, rtol=1e-6)  # BLAS adds in another order with more threads
    assert here_failures == there_failures
    assert {f["clip"] for f in here_failures} == {"silent"}
    assert [f["metric"] for f in here_failures] == [
        name for name in METRICS if name not in ("mel_distance", "stft_distance")
    ]
    assert here_failures[0]["reason"] == "The estimate is silent."
    assert here.drop(columns="clip").isna().sum().sum() == len(here_failures)


def test_a_crash_loses_its_own_cell_only():
    wav = speech(1.0)
    loud = wav / np.abs(wav).max()
    pairs = [(f"clip{i}", loud if i == 2 else wav, noisy(wav, 10)) for i in range(5)]
    metrics = {"si_sdr": METRICS["si_sdr"], "killer": as_metric(kill_on_loud), "stoi": METRICS["stoi"]}
    table, failures = score_clips(pairs, RATE, metrics, workers=2)
    reason = "The metric killed its process (SIGSEGV)."
    assert failures == [{"clip": "clip2", "metric": "killer", "reason": reason}]
    assert np.isnan(table.loc[2, "killer"])
    assert table.isna().sum().sum() == 1
    assert list(table["clip"]) == [f"clip{i}" for i in range(5)]


def test_a_process_that_the_machine_killed_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_METRICS_MARKER", str(tmp_path / "died"))
    wav = speech(1.0)
    table, failures = score_clips([("a", wav, wav)], RATE, {"once": as_metric(kill_first_time)}, workers=1)
    assert (tmp_path / "died").exists()
    assert failures == []
    assert table.loc[0, "once"] == 1


def test_order_is_that_of_the_clips():
    # the first clip is the last to be scored
    pairs = [(f"clip{i}", np.full(4, i, dtype=np.float32), np.zeros(4)) for i in range(6)]
    table, _ = score_clips(pairs, RATE, {"late": as_metric(late_if_first)}, workers=2)
    assert list(table["late"]) == list(range(6))


def test_no_metrics_still_give_one_row_per_clip():
    pairs = [(f"clip{i}", np.zeros(4), np.zeros(4)) for i in range(6)]
    table, failures = score_clips(pairs, RATE, metrics={}, workers=2)
    assert (len(table), failures) == (6, [])


def test_clips_are_read_no_faster_than_they_are_scored():
    # the one process sleeps 0.3 s on each: the last of four is asked for only when three are done
    times = []

    def pairs():
        for i in range(4):
            times.append(time.monotonic())
            yield f"clip{i}", np.zeros(4, dtype=np.float32), np.zeros(4, dtype=np.float32)

    score_clips(pairs(), RATE, {"late": as_metric(late_if_first)}, workers=1)
    assert times[-1] - times[0] > 0.9


def test_processes_use_one_thread():
    before = dict(os.environ)
    pairs = [("a", np.zeros(4), np.zeros(4))]
    table, _ = score_clips(pairs, RATE, {"threads": as_metric(threads)}, workers=1)
    assert table.loc[0, "threads"] == 1
    assert dict(os.environ) == before


def test_unequal_lengths_name_the_clip_and_leave_no_process():
    with pytest.raises(ValueError, match="Clip odd"):
        score_clips([("odd", np.zeros(4), np.zeros(5))], RATE, workers=1)


def test_a_process_imports_neither_torch_nor_pandas():
    heavy = "', '.join({'torch', 'pandas', 'librosa'} & set(sys.modules))"
    code = f"import sys, codec.evaluation.metrics.workers; sys.exit({heavy})"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.stderr.strip() == ""
