"""A codec of ours as a system: what its codes cost."""

import math

import pytest
import torch

from codec.evaluation.baselines import codec as codec_system
from codec.evaluation.baselines.codec import CodecSystem
from codec.evaluation.evaluate import evaluate
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.profiling import gflop_per_second
from codec.quantizers.none import NoQuantizer
from tests.helpers.parts import small_codec, tone_batch

MEL = {"si_sdr": METRICS["si_sdr"]}


def clips(count: int, samples: int = 900):
    return [{"wav": tone_batch(1, samples, seed=n)[0], "speaker": "s", "file": f"{n}.wav"} for n in range(count)]


def test_facts_are_those_of_the_codes_that_went_by():
    codec = small_codec().train()
    for seed in range(5):
        codec(tone_batch(4, 800, seed))
    report = evaluate(CodecSystem(codec, 2), clips(3), 800, {"step": 5}, workers=0, metrics=MEL)
    facts = report.facts
    assert (facts["n_q"], facts["step"], facts["clips"]) == (2, 5, 3)
    assert facts["kbps"] == pytest.approx(2 * 4 * 100 / 1000)
    assert facts["latency_ms"] == pytest.approx(10)
    assert {side: facts[f"gflop_{side}"] for side in ("encode", "decode")} == gflop_per_second(codec, 2)
    with torch.no_grad():
        codes = torch.cat([codec.eval().encode(c["wav"][None], 2)[0] for c in clips(3)], dim=-1)  # [2, all frames]
    entropy = 0.0
    for level in codes:
        p = torch.bincount(level, minlength=16).double() / level.numel()
        entropy -= float((p[p > 0] * p[p > 0].log2()).sum())
    assert facts["entropy_kbps"] == pytest.approx(entropy * 100 / 1000, rel=1e-4)
    assert facts["codebook_usage"] == [round(len(set(level.tolist())) / 16, 4) for level in codes]


def test_a_continuous_codec_has_scores_and_no_codes():
    report = evaluate(CodecSystem(small_codec(NoQuantizer(8, 100))), clips(2), 800, workers=0, metrics=MEL)
    assert math.isnan(report.facts["kbps"])
    assert "entropy_kbps" not in report.facts
    assert report.summary()["si_sdr"]["n"] == 2


def test_an_evaluation_repeats_to_the_byte(tmp_path):
    codec = small_codec()
    for folder in ("a", "b"):
        evaluate(CodecSystem(codec), clips(3), 800, workers=0, metrics=MEL).write(tmp_path / folder)
    for name in ("report.json", "report.md", "report.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_part_that_eludes_the_measures_of_cost_does_not_cost_the_scores(monkeypatch):
    def fails(codec):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(codec_system, "algorithmic_delay", fails)
    report = evaluate(CodecSystem(small_codec()), clips(1), 800, workers=0, metrics=MEL)
    assert report.facts["latency_ms"] is None
    assert report.facts["cost"] == "not known: RuntimeError: no such thing"
    assert report.summary()["si_sdr"]["n"] == 1
