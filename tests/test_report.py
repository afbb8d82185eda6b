"""Properties of the report: complete, reproducible to the byte, and honest about what failed."""

import json
import math

import numpy as np
import pandas
import pytest

from codec.evaluation import evaluate
from codec.metrics.table import METRICS
from codec.report import Report, ReportError
from tests.speech import RATE, Rounding, clip

FAST = {name: METRICS[name] for name in ("stoi", "si_sdr", "mel_distance")}


def report_of(count: int = 4, **options) -> Report:
    facts = {"n_q": 8, "checkpoint": None, "parameters": np.int64(123)}
    clips = (clip(i) for i in range(count))
    return evaluate(Rounding(), clips, RATE, facts, workers=0, metrics=FAST, **options)


def test_every_clip_is_scored_and_summed_up():
    report = report_of()
    assert list(report.clips.columns) == ["clip", "speaker", "seconds", *FAST]
    assert list(report.clips["clip"]) == ["s0/take 0", "s1/take 1", "s0/take 2", "s1/take 3"]
    assert (report.clips["seconds"] == 1).all()
    assert report.failures == []
    assert report.facts["clips"] == 4
    for name, entry in report.summary().items():
        assert entry["mean"] == pytest.approx(report.clips[name].mean())
        assert entry["low"] <= entry["mean"] <= entry["high"]
        assert (entry["n"], entry["failed"]) == (4, 0)


def test_processes_give_the_same_report():
    there = evaluate(Rounding(), [clip(i) for i in range(2)], RATE, {}, workers=1, metrics=FAST)
    here = evaluate(Rounding(), [clip(i) for i in range(2)], RATE, {}, workers=0, metrics=FAST)
    pandas.testing.assert_frame_equal(there.clips, here.clips, rtol=1e-6)  # BLAS: another order with more threads


def test_written_twice_is_equal_to_the_byte(tmp_path):
    for folder in ("a", "b"):
        report_of().write(tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["report.csv", "report.json", "report.md"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_json_has_no_nan(tmp_path):
    clips = pandas.DataFrame(
        {"clip": ["a", "b"], "speaker": [None, "s"], "seconds": [1.0, 2.0], "stoi": [math.nan, 0.51234567]}
    )
    failures = [{"clip": "a", "metric": "stoi", "reason": "The estimate is silent."}]
    facts = {"entropy": math.nan, "rate": np.float32(1.5)}
    path = Report(clips, failures, facts).write(tmp_path, stem="test")

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["clips"][0]["stoi"] is None
    assert content["clips"][1]["stoi"] == 0.512346
    assert content["facts"] == {"entropy": None, "rate": 1.5}
    assert content["summary"]["stoi"]["failed"] == 1
    assert content["failures"] == failures
    assert "nan" not in (tmp_path / "test.csv").read_text(encoding="utf-8").lower()


def test_tables_show_direction_unit_and_failures():
    report = report_of()
    report.clips.loc[1, "stoi"] = math.nan
    report.failures.append({"clip": "s1/take 1", "metric": "stoi", "reason": "Too short."})
    for text in (report.table(), report.markdown()):
        assert "SI-SDR (dB) ↑" in text
        assert "Mel distance (log10) ↓" in text
        assert "s1/take 1, stoi: Too short." in text
        assert "n_q" in text
    widths = {line.find("[") for line in report.table().splitlines() if "[" in line}
    assert len(widths) == 1  # the columns stand under one another


def test_a_report_reads_back_as_it_was_written(tmp_path):
    report = report_of(3, folder=tmp_path, audio=2)
    report.clips.loc[1, "stoi"] = math.nan
    path = report.write(tmp_path)
    again = Report.read(path)
    pandas.testing.assert_frame_equal(again.clips, report.clips, rtol=1e-5)
    assert (again.metrics, again.audio, again.failures) == (report.metrics, report.audio, report.failures)
    (tmp_path / "again").mkdir()
    assert again.write(tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_report_of_an_older_version_reads(tmp_path):
    """It names neither its metrics nor its sound."""
    report = report_of()
    path = report.write(tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in ("metrics", "audio")}), encoding="utf-8")
    again = Report.read(path)
    assert (set(again.metrics), again.audio, again.facts) == (set(report.metrics), {}, Report.read(path).facts)
    assert again.clips["stoi"].tolist() == pytest.approx(report.clips["stoi"].tolist(), rel=1e-5)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"clips": [], "metrics": ["stoi"]}'])
def test_what_is_no_report_is_named(tmp_path, text):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReportError, match=r"report\.json"):
        Report.read(path)
