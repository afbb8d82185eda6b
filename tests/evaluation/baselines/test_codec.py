"""A codec of this package as a system: the statistics and the cost of its codes."""

import math

import pytest
import torch

from codec.evaluation.baselines import codec as codec_system
from codec.evaluation.baselines.codec import CodecSystem
from codec.evaluation.evaluate import evaluate
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.profiling import gflop_per_second
from codec.quantizers.base import entropy
from codec.quantizers.none import NoQuantizer
from tests.helpers.parts import small_codec, tone_batch

CLIPS = [{"wav": tone_batch(1, 900, seed=n)[0], "speaker": "s", "file": f"{n}.wav"} for n in range(3)]


def scored(system: CodecSystem, **facts):
    return evaluate(system, CLIPS, 800, facts, workers=0, metrics={"si_sdr": METRICS["si_sdr"]})


def test_facts_are_those_of_the_codes_of_all_clips(tmp_path):
    codec = small_codec().train()
    for seed in range(3):
        codec(tone_batch(4, 800, seed))
    reports = [scored(CodecSystem(codec, 2), step=5) for _ in range(2)]
    facts = reports[0].facts
    assert (facts["n_q"], facts["step"], facts["clips"]) == (2, 5, 3)
    assert facts["kbps"] == pytest.approx(2 * 4 * 100 / 1000)
    assert facts["latency_ms"] == pytest.approx(10)
    assert {side: facts[f"gflop_{side}"] for side in ("encode", "decode")} == gflop_per_second(codec, 2)
    with torch.no_grad():
        codes = torch.cat([codec.eval().encode(clip["wav"][None], 2)[0] for clip in CLIPS], dim=-1)  # [2, frames]
    bits = entropy(torch.stack([torch.bincount(level, minlength=16) for level in codes]).float())
    assert facts["entropy_kbps"] == pytest.approx(float(bits.sum()) * 100 / 1000, rel=1e-4)
    assert facts["code_frames"] == codes.shape[1]
    assert facts["codebook_usage_uniform"] == pytest.approx(1 - (15 / 16) ** codes.shape[1], abs=1e-3)
    assert facts["codebook_usage"] == [round(len(set(level.tolist())) / 16, 4) for level in codes]
    files = [report.write(tmp_path / str(n)) for n, report in enumerate(reports)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_no_codes_or_a_cost_that_cannot_be_measured_leave_the_scores(monkeypatch):
    continuous = scored(CodecSystem(small_codec(NoQuantizer(8, 100))))
    assert math.isnan(continuous.facts["kbps"])
    assert "entropy_kbps" not in continuous.facts
    monkeypatch.setattr(codec_system, "algorithmic_delay", lambda codec: 1 / 0)
    unmeasured = scored(CodecSystem(small_codec()))
    assert unmeasured.facts["latency_ms"] is None
    assert "ZeroDivisionError" in unmeasured.facts["cost"]
    assert continuous.summary()["si_sdr"]["n"] == unmeasured.summary()["si_sdr"]["n"] == 3
