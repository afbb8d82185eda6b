"""Worker processes of the metrics: they agree with the calling process, and survive a crash."""

import os

import numpy as np
import pandas
import pytest

from codec.evaluation.metrics.base import Metric
from codec.evaluation.metrics.table import choose
from codec.evaluation.metrics.workers import score_clips
from tests.helpers.metric_functions import burden, kill_first_time, kill_on_loud, late_if_first
from tests.helpers.signals import RATE, noisy, speech


def as_metric(function) -> Metric:
    return Metric(function.__name__, function, "", True)


def test_processes_agree_with_this_process_and_list_failures():
    chosen = choose(["stoi", "si_sdr", "mel_distance"])
    wavs = [speech(1.0, seed=seed) for seed in range(2)]
    pairs = [(f"clip{i}", wav, noisy(wav, 10).astype(np.float32)) for i, wav in enumerate(wavs)]
    pairs.insert(1, ("silent", wavs[0], np.zeros_like(wavs[0])))
    here, here_failures = score_clips(iter(pairs), RATE, chosen, workers=0)
    there, there_failures = score_clips(iter(pairs), RATE, chosen, workers=1)
    assert list(here.columns) == ["clip", *chosen]
    assert list(here["clip"]) == ["clip0", "silent", "clip1"]
    pandas.testing.assert_frame_equal(here, there, rtol=1e-6)  # BLAS adds in another order with more threads
    reason = "The estimate is silent."
    assert here_failures == [{"clip": "silent", "metric": m, "reason": reason} for m in ("stoi", "si_sdr")]
    assert here_failures == there_failures
    assert here.isna().sum().sum() == 2


def test_a_crash_loses_its_own_cell_and_one_by_the_machine_none(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_METRICS_MARKER", str(tmp_path / "died"))
    before = dict(os.environ)
    pairs = [(f"clip{i}", np.full(4, 1.0 if i == 1 else 0.5), np.zeros(4)) for i in range(3)]
    metrics = {f.__name__: as_metric(f) for f in (kill_first_time, kill_on_loud, burden)}
    table, failures = score_clips(pairs, RATE, metrics, workers=1)
    reason = "The metric killed its process (SIGSEGV)."
    assert failures == [{"clip": "clip1", "metric": "kill_on_loud", "reason": reason}]
    assert np.isnan(table.loc[1, "kill_on_loud"])
    assert table.isna().sum().sum() == 1
    assert (tmp_path / "died").exists()
    assert (table["burden"] == 0).all()  # each process has one thread, and starts quickly
    assert dict(os.environ) == before


def test_clips_keep_their_order_and_are_read_no_faster_than_they_are_scored(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_METRICS_MARKER", str(tmp_path))

    def pairs():
        for i in range(6):
            assert len(list(tmp_path.iterdir())) > i - 2
            yield f"clip{i}", np.full(4, i, dtype=np.float32), np.zeros(4)

    # the first clip takes the longest
    table, _ = score_clips(pairs(), RATE, {"late": as_metric(late_if_first)}, workers=2)
    assert list(table["late"]) == list(range(6))


def test_unequal_lengths_are_refused_and_no_metrics_still_give_one_row_per_clip():
    with pytest.raises(ValueError, match="Clip odd"):
        score_clips([("odd", np.zeros(4), np.zeros(5))], RATE, workers=0)
    table, failures = score_clips([(f"clip{i}", np.zeros(4), np.zeros(4)) for i in range(6)], RATE, {}, workers=2)
    assert (len(table), failures) == (6, [])
