"""Properties of the report: complete, reproducible to the byte, and honest about what failed."""

import json
import math

import numpy as np
import pandas
import pytest

from codec.evaluation.evaluate import evaluate
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.report import LARGEST, Report, ReportError, overview
from tests.helpers.speech import RATE, Rounding, clip

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


SOUND = {"reference": "audio/a.flac", "decoded": "audio/b.flac"}
FAILURE = {"clip": "a", "metric": "stoi", "reason": "It is silent."}


def content(clip=None, metrics=("stoi",), **other):
    """What a report holds, one clip named a, with changes to the clip or to the whole."""
    row = {"clip": "a", "speaker": None, "seconds": 1.0, "stoi": 0.5} | (clip or {})
    whole = {"clips": [row], "metrics": list(metrics), "failures": [FAILURE], "facts": {}, "audio": {"a": SOUND}}
    return whole | other


def test_the_content_that_the_next_test_damages_reads(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(content()))
    report = Report.read(tmp_path / "report.json")
    assert (report.audio, report.failures, report.clips["stoi"][0]) == ({"a": SOUND}, [FAILURE], 0.5)


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (content(clip={"clip": 3}), "no name"),
        (content(clips=content()["clips"] * 2), "twice"),
        (content(clips=[]), "no table"),
        (content(clips=[1]), "no table"),
        (content(clip={"speaker": ["x"]}), "speaker"),
        (content(clip={"seconds": None}), "length"),
        (content(clip={"stoi": "0.5"}), "score"),
        (content(clip={"stoi": True}), "score"),
        (content(clip={"stoi": 10**400}), "score"),
        (content(clip={"stoi": math.nan}), "NaN"),
        (content(clip={"clip": "\ud800"}), "surrogates"),
        (content(metrics=["stoi", "stoi"]), "named twice"),
        (content(metrics=["$x$"]), "name that is none"),
        (content(metrics=["clip"]), "name that is none"),
        (content(metrics=[["stoi"]]), "name that is none"),
        (content(metrics=["pesq"]), "lacks"),
        (content(failures={}), "failures"),
        (content(failures=["broken"]), "failure"),
        (content(failures=[FAILURE | {"reason": None}]), "failure"),
        (content(failures=[{"clip": "a"}]), "failure"),
        (content(facts=[]), "facts"),
        (content(facts={"kbps": "6"}), "kbps"),
        (content(facts={"run": 7}), "run"),
        (content(facts={"codebook_usage": "all"}), "usage"),
        (content(facts={"codebook_perplexity": [1, None]}), "usage"),
        (content(facts={"codebook_usage": [1], "codebook_perplexity": [1, 2]}), "too few"),
        (content(audio=["a"]), "heard"),
        (content(audio={"b": SOUND}), "no clip of it"),
        (content(audio={"a": {"decoded": "b.flac"}}), "reference and a decoded"),
        (content(audio={"a": SOUND | {"reference": 1}}), "reference and a decoded"),
        *(
            (content(audio={"a": SOUND | {role: file}}), "outside")
            for role in SOUND
            for file in (
                "../s.wav",
                "/etc/s.wav",
                "a/../../s.wav",
                "C:\\s.wav",
                "..\\s.wav",
                "",
                "a\0b",
                "//host/s.wav",
            )
        ),
    ],
)
def test_a_report_that_is_not_what_is_written_is_refused(tmp_path, damaged, why):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(damaged))
    with pytest.raises(ReportError, match=rf"report\.json is no report of this project: .*{why}") as caught:
        Report.read(path)
    assert "\n" not in str(caught.value)


def test_a_report_that_is_too_large_or_too_deep_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ReportError, match="no report"):
        Report.read(path)
    with path.open("w") as file:
        file.truncate(LARGEST + 1)  # takes no room on the disk
    with pytest.raises(ReportError, match="more than 64,000,000 bytes"):
        Report.read(path)


def test_a_single_clip_has_a_mean_and_no_interval(tmp_path):
    report = report_of(1)
    entry = json.loads(report.write(tmp_path).read_text(encoding="utf-8"))["summary"]["stoi"]
    assert (entry["low"], entry["high"], entry["n"]) == (None, None, 1)
    assert entry["mean"] == pytest.approx(report.clips["stoi"][0], rel=1e-5)
    for text in (report.table(), report.markdown()):
        assert f"{report.clips['stoi'][0]:.3f}" in text
        assert "[" not in text
        assert "nan" not in text


@pytest.mark.parametrize("kbps", [None, math.nan, 0.0])
def test_what_has_no_bitrate_shows_none(kbps):
    report = report_of(2)
    report.facts["kbps"] = kbps
    assert overview({"codec": report}).splitlines()[-1].split()[:2] == ["codec", "-"]


def test_markdown_stays_a_table(tmp_path):
    report = report_of(2)
    report.facts["a|b"] = "one\ntwo | three"
    report.failures.append({"clip": "x", "metric": "stoi", "reason": "Too\n\n# short | long."})
    lines = report.markdown().splitlines()
    assert r"| a\|b | one two \| three |" in lines
    assert r"- x, stoi: Too  # short \| long." in lines
