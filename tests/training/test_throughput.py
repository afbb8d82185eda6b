"""The callback that measures the time spent on waiting for data."""

import itertools
import logging
from types import SimpleNamespace

import pytest

from codec.training.callbacks.progress import Throughput


@pytest.mark.parametrize("slow", [True, False])
def test_a_slow_reader_is_reported_once(caplog, monkeypatch, slow):
    throughput, clock, now = Throughput(share=0.3, window=5), itertools.count(), [0.0]
    monkeypatch.setattr("codec.training.callbacks.progress.perf_counter", lambda: now[0])
    trainer = SimpleNamespace(log_every_n_steps=10**9, is_global_zero=True, world_size=1)
    task = SimpleNamespace(seconds=lambda batch: 1.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(40):
            now[0] += 0.1 if slow else 0.01  # until there is a batch
            throughput.on_train_batch_start()
            now[0] += 0.1
            throughput.on_train_batch_end(trainer, task, None, None, next(clock))
            if not slow:
                throughput.on_validation_start()
                now[0] += 10
    assert len([r for r in caplog.records if "bottleneck" in r.message]) == slow
