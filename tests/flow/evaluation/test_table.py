"""Reports of spans: only the span counts, as decoded, and every failure is listed."""

import math
from dataclasses import replace

import numpy as np
import pandas
import pytest

from codec.evaluation.report import Report
from codec.flow.evaluation.table import CEILING, FLOOR, interval, relative_to_bounds, span_report, table
from codec.utils.errors import InputError
from tests.helpers.tones import RATE


def test_failures_are_counted_and_listed(reports, panel, recordings):
    silence = reports["silence"]
    assert silence.clips["span_mcd"].isna().all()
    reasons = {failure["reason"] for failure in silence.failures if failure["metric"] == "span_mcd"}
    assert reasons == {"The estimate is silent."}
    assert "nan (8 failed)" in table(reports, panel)
    odd = {recording.clip: recording.wav for recording in recordings}
    odd |= {recordings[0].clip: InputError("out of luck"), recordings[1].clip: recordings[1].wav * np.nan}
    report = span_report("odd", recordings, odd, RATE, panel)
    assert {"clip": recordings[0].clip, "metric": "system", "reason": "out of luck"} in report.failures
    assert report.clips["span_per"].isna().sum() == 2
    assert interval(report, "span_per").n == relative_to_bounds(reports | {"odd": report}, "odd").n == 6
    mute = replace(recordings[0], phones=[("_", 0.0)])
    values, reasons = panel.score(mute, mute.wav, RATE)
    assert math.isnan(values["span_per"])
    assert "no phone" in reasons["span_per"]
    assert values["span_mcd"] < 1e-6
    for some, wavs, word in (
        (recordings, {r.clip: r.wav[:-1] for r in recordings}, "length"),
        ([], {}, "no recording"),
    ):
        with pytest.raises(InputError, match=word):
            span_report("odd", some, wavs, RATE, panel)


def test_the_table_has_all_systems_and_the_errors_of_its_judges(reports, panel, tmp_path):
    text = table(reports | {FLOOR: Report.read(reports[FLOOR].write(tmp_path))}, panel)
    for name in (*reports, panel.recogniser.identity, "equal error rate", "over 4 speakers", "ceiling 0, floor 1"):
        assert name in text
    assert "ceiling 0" in table({CEILING: reports[CEILING]}, panel)


def report(values: list[float], speakers: str) -> Report:
    rows = {"clip": [str(n) for n in range(len(values))], "speaker": list(speakers), "seconds": 1.0, "span_per": values}
    return Report(pandas.DataFrame(rows), [], {})


def test_intervals_are_over_speakers():
    """Ten recordings of either voice are worth two, not twenty."""
    alike = report([0.0] * 10 + [1.0] * 10, "a" * 10 + "b" * 10)
    assert interval(alike, "span_per")[3:] == (20, 2)
    assert interval(alike, "span_per").high > 1
    assert interval(report([0.0, 1.0] * 10, "a" * 20), "span_per").high < 0.8  # one voice: over recordings


def test_scores_relative_to_ceiling_and_floor():
    found = {CEILING: report([0.1, 0.3, 0.0], "abb"), FLOOR: report([0.5, 0.7, 1.0], "abb")}
    half = report([0.3, 0.5, math.nan], "abb")
    assert relative_to_bounds(found | {"half": half}, "half") == pytest.approx((0.5, 0.5, 0.5, 2, 2))
    assert [relative_to_bounds(found, name).mean for name in (CEILING, FLOOR)] == [0, 1]
    assert math.isnan(relative_to_bounds(found | {FLOOR: found[CEILING]}, FLOOR).mean)
    assert relative_to_bounds(found | {"none": report([math.nan] * 3, "abb")}, "none").n == 0


def test_halves_of_the_recordings_have_the_same_speakers(panel, recordings):
    """Recordings that differ between speakers only: their halves have to be alike."""
    twice = [replace(r, clip=f"{r.clip}{n}") for n in range(2) for r in recordings[:4]]  # speakers in turns
    found = span_report("same", twice, {r.clip: r.wav for r in twice}, RATE, panel)
    assert found.facts["frechet_halves"] == pytest.approx(0, abs=1e-6)


def test_outside_of_the_span_nothing_counts(panel, recordings):
    """Noise everywhere but in the span and 0.3 s around it."""
    rng, noisy = np.random.default_rng(0), {}
    for recording in recordings:
        wav = 0.1 * rng.standard_normal(len(recording.wav)).astype(np.float32)
        start, end = (round(time * RATE) for time in recording.span)
        inside = slice(max(0, start - 5000), end + 5000)
        wav[inside] = recording.wav[inside]
        noisy[recording.clip] = wav
    found = span_report("noisy", recordings, noisy, RATE, panel)
    assert interval(found, "span_mcd").mean < 1e-6
    assert interval(found, "span_voicing_error").mean == 0
    assert interval(found, "span_per").mean < 0.3
