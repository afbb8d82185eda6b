"""Report: complete, reproducible to the byte, explicit about failures; foreign files are validated."""

import json
import math

import numpy as np
import pandas
import pytest

from codec.evaluation.evaluate import evaluate
from codec.evaluation.metrics.base import MissingError
from codec.evaluation.metrics.table import choose
from codec.evaluation.report import LARGEST, Report, ReportError, overview
from tests.helpers.speech import RATE, Rounding, clip
from tests.helpers.systems import FAST


def made_report(count: int = 3, **options) -> Report:
    facts = {"n_q": 8, "checkpoint": None, "parameters": np.int64(123)}
    return evaluate(Rounding(), (clip(i, 0.5) for i in range(count)), RATE, facts, workers=0, metrics=FAST, **options)


def test_every_clip_is_scored_and_summarised():
    report = made_report()
    assert list(report.clips.columns) == ["clip", "speaker", "seconds", *FAST]
    assert list(report.clips["clip"]) == ["s0/take 0", "s1/take 1", "s0/take 2"]
    assert (report.failures, report.facts["clips"], report.facts["speakers"]) == ([], 3, 2)
    for name, row in report.summary().items():
        assert row["mean"] == pytest.approx(report.clips[name].mean())
        assert row["low"] <= row["mean"] <= row["high"]
        assert (row["n"], row["failed"]) == (3, 0)


def test_files_are_reproducible_and_read_back(tmp_path):
    report = made_report(folder=tmp_path, audio=2)
    report.clips.loc[1, "stoi"] = math.nan
    path = report.write(tmp_path / "a")
    again = Report.read(path)
    pandas.testing.assert_frame_equal(again.clips, report.clips, rtol=1e-5)
    assert (again.metrics, again.audio, again.failures) == (report.metrics, report.audio, report.failures)
    again.write(tmp_path / "b")
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.csv", "report.json", "report.md"]
    assert (tmp_path / "b" / "report.json").read_bytes() == path.read_bytes()

    content = json.loads(path.read_text())  # older versions named neither metrics nor audio
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("metrics", "audio")}))
    old = Report.read(path)
    assert (set(old.metrics), old.audio, old.facts) == (set(report.metrics), {}, again.facts)


@pytest.mark.parametrize(
    ("speakers", "count", "word"),
    [
        ([0, 1, 2, 3, 4], 5, "over 5 speakers"),
        (["", None], None, "speakers unknown"),
        (["a"], None, "only speaker"),
    ],
)
def test_intervals_count_speakers_and_say_so(tmp_path, speakers, count, word):
    """Forty clips in which all that varies is the speaker."""
    column = [speakers[i % len(speakers)] for i in range(40)]
    rows = {"clip": [f"c{i}" for i in range(40)], "speaker": column, "seconds": 1.0}
    report = Report(pandas.DataFrame(rows | {"stoi": [0.5 + 0.1 * (i % 5) for i in range(40)]}), [], {})
    found = Report.read(report.write(tmp_path))
    row = found.summary()["stoi"]
    assert (row["speakers"], row["n"]) == (count, 40)
    half = 2.776 * 0.1581 / math.sqrt(5) if count else 2.023 * 0.1432 / math.sqrt(40)  # t of 4, of 39
    assert row["high"] - row["mean"] == pytest.approx(half, rel=1e-3)
    assert word in found.table()
    assert word in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["summary"]["stoi"]["speakers"] == count


def test_json_has_null_for_nan_and_six_digits(tmp_path):
    columns = {"clip": ["a", "b"], "speaker": [None, "s"], "seconds": [1.0, 2.0], "stoi": [math.nan, 0.51234567]}
    failures = [{"clip": "a", "metric": "stoi", "reason": "The estimate is silent."}]
    report = Report(pandas.DataFrame(columns), failures, {"entropy": math.nan, "rate": np.float32(1.5)})
    path = report.write(tmp_path, stem="test")
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert [row["stoi"] for row in content["clips"]] == [None, 0.512346]
    assert content["facts"] == {"entropy": None, "rate": 1.5}
    assert content["summary"]["stoi"]["failed"] == 1
    assert content["failures"] == failures
    assert "nan" not in (tmp_path / "test.csv").read_text().lower()


def test_tables_show_direction_unit_and_failures():
    report = made_report()
    report.clips.loc[1, "stoi"] = math.nan
    report.facts["a|b"] = "one\ntwo | three"
    report.failures.append({"clip": "s1/take 1", "metric": "stoi", "reason": "Too\n\n# short | long."})
    for words in ("SI-SDR (dB) ↑", "Mel distance (log10) ↓", "s1/take 1, stoi: Too", "n_q"):
        assert words in report.table()
        assert words in report.markdown()
    lines = report.markdown().splitlines()
    assert r"| a\|b | one two \| three |" in lines
    assert r"- s1/take 1, stoi: Too  # short \| long." in lines


def test_a_single_clip_has_a_mean_and_no_interval(tmp_path):
    report = made_report(1)
    row = json.loads(report.write(tmp_path).read_text())["summary"]["stoi"]
    assert (row["low"], row["high"], row["n"]) == (None, None, 1)
    for text in (report.table(), report.markdown()):
        assert f"{report.clips['stoi'][0]:.3f}" in text
        assert "[" not in text
        assert "nan" not in text
    for kbps in (None, math.nan, 0.0):
        report.facts["kbps"] = kbps
        assert overview({"codec": report}).splitlines()[-1].split()[:2] == ["codec", "-"]


AUDIO = {"reference": "audio/a.flac", "decoded": "audio/b.flac"}
FAILURE = {"clip": "a", "metric": "stoi", "reason": "It is silent."}


def content(clip=None, metrics=("stoi",), **other):
    """Content of a report with one clip, with changes to the clip or to the whole."""
    row = {"clip": "a", "speaker": None, "seconds": 1.0, "stoi": 0.5} | (clip or {})
    return {"clips": [row], "metrics": list(metrics), "failures": [FAILURE], "facts": {}, "audio": {"a": AUDIO}} | other


DAMAGED = [
    ("clip", content(clip={"clip": 3})),
    ("twice", content(clips=content()["clips"] * 2)),
    ("clips", content(clips=[])),
    ("clips", content(clips=[1])),
    ("speaker", content(clip={"speaker": ["x"]})),
    ("seconds", content(clip={"seconds": None})),
    *(("stoi", content(clip={"stoi": score})) for score in ("0.5", True, 10**400, 1e305)),
    ("NaN", content(clip={"stoi": math.nan})),
    ("surrogates", content(clip={"clip": "\ud800"})),
    *(("metrics?", content(metrics=names)) for names in (["stoi", "stoi"], ["$x$"], ["clip"], [["stoi"]])),
    ("lacks", content(metrics=["pesq"])),
    *(("failures", content(failures=value)) for value in ({}, ["x"], [{"clip": "a"}], [FAILURE | {"reason": None}])),
    *(("facts", content(facts=facts)) for facts in ([], {"kbps": "6"}, {"run": 7}, {"codebook_usage": "all"})),
    ("perplexity", content(facts={"codebook_perplexity": [1, None]})),
    ("length", content(facts={"codebook_usage": [1], "codebook_perplexity": [1, 2]})),
    *(("audio", content(audio=audio)) for audio in (["a"], {"b": AUDIO}, {"a": {"decoded": "b.flac"}})),
    ("2,000", content(audio={str(n): 1 for n in range(2000)})),
    *(
        ("outside of its folder", content(audio={"a": AUDIO | {"reference": file}}))
        for file in ("../s.wav", "/etc/s.wav", "a/../../s.wav", "C:\\s.wav", "..\\s.wav", "", "a\0b", "//host/s.wav")
    ),
    *(("", text) for text in ("", "[]", "{}", "[" * 200_000)),
]


@pytest.mark.parametrize(("word", "damaged"), DAMAGED)
def test_damaged_reports_are_refused_in_a_sentence(tmp_path, word, damaged):
    path = tmp_path / "report.json"
    path.write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    with pytest.raises(ReportError, match=rf"report\.json is no report of this project: .*{word}") as error:
        Report.read(path)
    assert "\n" not in str(error.value)


def test_only_undamaged_present_and_small_reports_are_read(tmp_path):
    path = tmp_path / "report.json"
    with pytest.raises(ReportError, match="there is no report"):
        Report.read(path)
    path.write_text(json.dumps(content()))
    report = Report.read(path)
    assert (report.audio, report.failures, report.clips["stoi"][0]) == ({"a": AUDIO}, [FAILURE], 0.5)
    with path.open("w") as file:
        file.truncate(LARGEST + 1)  # takes no room on the disk
    with pytest.raises(ReportError, match="more than 64,000,000 bytes"):
        Report.read(path)


def test_a_report_with_the_former_f0_error_reads_and_is_not_mixed_with_the_new(tmp_path):
    report = made_report()
    report.clips["f0_error"] = [100.0, 300.0, math.nan]
    path = report.write(tmp_path)
    content = json.loads(path.read_text())
    for row in content["summary"].values():  # reports of before had no speakers
        del row["speakers"]
    path.write_text(json.dumps(content))
    found = Report.read(path)
    assert found.summary()["f0_error"]["n"] == 2
    assert "gross errors (cents) ↓" in found.table()
    with pytest.raises(MissingError, match="f0_rmse"):
        choose("f0_error")
