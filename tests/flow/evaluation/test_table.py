"""The table: what is scored is the span, as decoded, and nothing is left out without a word."""

import math
from dataclasses import replace

import numpy as np
import pandas
import pytest

from codec.evaluation.report import Report
from codec.flow.evaluation.bounds import draw_span
from codec.flow.evaluation.panel import Panel
from codec.flow.evaluation.table import CEILING, FLOOR, RECORDING, difference, interval, judged, table, way, with_spans
from codec.utils.errors import InputError
from tests.helpers.tones import RATE, Tones


def test_failures_are_counted_and_listed(reports, panel, recordings):
    silence = reports["silence"]
    assert silence.clips["span_mcd"].isna().all()
    reasons = {failure["reason"] for failure in silence.failures if failure["metric"] == "span_mcd"}
    assert reasons == {"The estimate is silent."}
    assert "nan (8 failed)" in table(reports, panel)
    odd = {recording.clip: recording.wav for recording in recordings}
    odd |= {recordings[0].clip: InputError("out of luck"), recordings[1].clip: recordings[1].wav * np.nan}
    report = judged("odd", recordings, odd, RATE, panel)
    assert {"clip": recordings[0].clip, "metric": "system", "reason": "out of luck"} in report.failures
    assert report.clips["span_per"].isna().sum() == 2
    assert interval(report, "span_per").n == 6
    assert way(reports | {"odd": report}, "odd").n == 6


def test_the_table_has_all_systems_and_says_how_good_its_judges_are(reports, panel):
    text = table(reports, panel)
    for name in (*reports, panel.recogniser.identity, "equal error rate", "over 4 speakers", "ceiling 0, floor 1"):
        assert name in text
    assert len(text.splitlines()) == 2 + len(reports) + 4
    assert "ceiling 0" in table({CEILING: reports[CEILING]}, panel)


def test_reports_survive_a_file(reports, tmp_path):
    path = reports[FLOOR].write(tmp_path)
    again = Report.read(path)
    assert again.facts["system"] == FLOOR
    found = interval(reports[FLOOR], "span_per")
    assert interval(again, "span_per").mean == pytest.approx(found.mean, rel=1e-5)
    assert again.facts["intervals"]["span_per"] == pytest.approx(found._asdict(), rel=1e-5)


def report(values: list[float], speakers: str) -> Report:
    rows = {"clip": [str(n) for n in range(len(values))], "speaker": list(speakers), "seconds": 1.0, "span_per": values}
    return Report(pandas.DataFrame(rows), [], {})


def test_intervals_are_over_speakers():
    """Ten recordings of either voice are worth two, not twenty."""
    alike = report([0.0] * 10 + [1.0] * 10, "a" * 10 + "b" * 10)
    assert interval(alike, "span_per") == (0.5, 0.0, 1.0, 20)
    assert interval(report([0.0, 1.0] * 10, "a" * 20), "span_per").high < 0.8  # one voice: over recordings
    one, other = report([0.5, 0.9, 0.2, 0.3], "aabb"), report([0.4, 0.8, 0.1, 0.2], "aabb")
    assert difference(one, other) == pytest.approx((0.1, 0.1, 0.1, 4))
    with pytest.raises(InputError, match="same recordings"):
        difference(one, report([1.0], "a"))


def test_the_way_from_ceiling_to_floor():
    found = {CEILING: report([0.1, 0.3, 0.0], "abb"), FLOOR: report([0.5, 0.7, 1.0], "abb")}
    half = [0.3, 0.5, math.nan]
    assert way(found | {"half": report(half, "abb")}, "half") == pytest.approx((0.5, 0.5, 0.5, 2))
    assert (way(found, CEILING).mean, way(found, FLOOR).mean) == (0, 1)
    assert math.isnan(way(found | {FLOOR: found[CEILING]}, FLOOR).mean)
    assert way(found | {"none": report([math.nan] * 3, "abb")}, "none").n == 0


def test_halves_of_the_recordings_have_the_same_speakers(panel, recordings):
    """Recordings that differ between speakers only: their halves have to be alike."""
    twice = [replace(r, clip=f"{r.clip}{n}") for r in recordings[:4] for n in range(2)]
    ordered = sorted(twice, key=lambda r: r.clip[-1])  # speakers in turns
    sounds = {r.clip: r.wav for r in ordered}
    assert judged("same", ordered, sounds, RATE, panel).facts["frechet_halves"] == pytest.approx(0, abs=1e-6)


def test_outside_of_the_span_nothing_counts(panel, recordings):
    """Noise everywhere but in the span and 0.3 s around it."""
    rng = np.random.default_rng(0)
    noisy = {}
    for recording in recordings:
        wav = 0.1 * rng.standard_normal(len(recording.wav)).astype(np.float32)
        start, end = (round(time * RATE) for time in recording.span)
        keep = slice(max(0, start - 5000), end + 5000)
        wav[keep] = recording.wav[keep]
        noisy[recording.clip] = wav
    report = judged("noisy", recordings, noisy, RATE, panel)
    assert interval(report, "span_mcd").mean < 1e-6
    assert interval(report, "span_voicing_error").mean == 0
    assert interval(report, "span_per").mean < 0.3


def test_spans_are_those_of_the_recording_and_others_are_named():
    clips = [Tones(2.5)[0], Tones(0.5)[1], Tones(2.5)[2], Tones(3.5)[3]]
    found, skipped = with_spans(clips, RATE, longest=3.0)
    assert [recording.clip for recording in found] == ["0", "2"]
    assert [recording.span for recording in found] == [draw_span(clips[n]["phones"], 2.5, 0, n) for n in (0, 2)]
    assert [name for name, _ in skipped] == ["1", "3"]
    assert "no room" in skipped[0][1]
    assert "longer than 3 s" in skipped[1][1]
    assert [recording.clip for recording in with_spans(clips, RATE, most=1)[0]] == ["0"]
    found, skipped = with_spans(clips, RATE, after=2.25)  # all that follows
    assert [(recording.clip, recording.span) for recording in found] == [("3", (2.25, 3.5))]
    assert [reason for _, reason in skipped] == [
        f"a recording of {s:.2f} s has less than 0.32 s after 2.25 s" for s in (2.5, 0.5, 2.5)
    ]
    silent = clips[3] | {"phones": [("a", 0.0), ("_", 1.0)]}
    assert "no phone after 1.5 s" in with_spans([silent], RATE, after=1.5)[1][0][1]


def test_another_length_and_no_recording_are_refused(panel, recordings):
    with pytest.raises(InputError, match="length it was given"):
        judged("short", recordings, {r.clip: r.wav[:-1] for r in recordings}, RATE, panel)
    with pytest.raises(InputError, match="no recording"):
        judged("none", [], {}, RATE, panel)


def test_a_span_without_phones_has_no_phone_error_rate(panel: Panel, recordings):
    silent = replace(recordings[0], phones=[("_", 0.0)])
    values, reasons = panel.score(silent, silent.wav, RATE)
    assert math.isnan(values["span_per"])
    assert "no phone" in reasons["span_per"]
    assert values["span_mcd"] < 1e-6


def test_recordings_score_as_the_ceiling_of_a_codec_without_loss(reports):
    assert interval(reports[RECORDING], "span_per") == interval(reports[CEILING], "span_per")
