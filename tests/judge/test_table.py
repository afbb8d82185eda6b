"""The table: what is scored is the span, as decoded, and nothing is left out without a word."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from codec.errors import InputError
from codec.judge.bounds import draw_span
from codec.judge.panel import Panel, Recording
from codec.judge.table import CEILING, FLOOR, RECORDING, bounds, interval, judged, table, through, way, with_spans
from codec.report import Report
from tests.tones import RATE, Tones

HOP = 320


class Space(SimpleNamespace):
    """A codec whose latents are the magnitudes and phases of frames of 20 ms: without loss, and poor to interpolate."""

    frame_rate, sample_rate = RATE / HOP, RATE

    def encode(self, wav):
        wav = torch.nn.functional.pad(wav[:, 0], (0, -wav.shape[-1] % HOP))
        spectrum = torch.fft.rfft(wav.unflatten(-1, (-1, HOP)))
        return torch.cat([spectrum.real, spectrum.imag], dim=-1).transpose(1, 2)

    def decode(self, x, length):
        real, imaginary = x.transpose(1, 2).chunk(2, dim=-1)
        return torch.fft.irfft(torch.complex(real, imaginary), HOP).flatten(1)[:, None, :length]


@pytest.fixture(scope="module")
def panel(tones, voices) -> Panel:
    return Panel(tones, voices)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return with_spans([Tones(2.5)[30_000 + n] for n in range(8)], RATE)[0]


@pytest.fixture(scope="module")
def reports(panel, recordings) -> dict[str, Report]:
    systems = bounds(Space()) | {"silence": through(Space(), lambda known, span, _: known * ~span[:, None])}
    return {name: judged(name, recordings, fill, RATE, panel) for name, fill in systems.items()}


def test_ceiling_and_floor_are_where_they_belong(reports):
    means = {name: interval(report, "span_per").mean for name, report in reports.items()}
    assert means[CEILING] == means[RECORDING] < 0.1  # this codec loses nothing
    assert means[FLOOR] > 0.5
    assert means["silence"] == pytest.approx(1, abs=0.1)
    assert (way(reports, CEILING), way(reports, FLOOR)) == (0, 1)
    for name, report in reports.items():
        assert (interval(report, "span_mcd").mean < 1e-3) == (name in (CEILING, RECORDING)) or name == "silence"
        assert (report.facts["frechet"] < 1e-3) == (name in (CEILING, RECORDING))
    assert interval(reports[FLOOR], "span_speaker").mean < interval(reports[CEILING], "span_speaker").mean


def test_failures_are_counted_and_listed(reports, panel, recordings):
    silence = reports["silence"]
    assert silence.clips["span_mcd"].isna().all()
    reasons = {failure["reason"] for failure in silence.failures if failure["metric"] == "span_mcd"}
    assert reasons == {"The estimate is silent."}
    assert "nan (8 failed)" in table(reports, panel)

    def odd(recording: Recording) -> np.ndarray:
        if recording is recordings[0]:
            raise RuntimeError("out of luck")
        return recording.wav * (np.nan if recording is recordings[1] else 1)

    report = judged("odd", recordings, odd, RATE, panel)
    assert {"clip": recordings[0].clip, "metric": "system", "reason": "RuntimeError: out of luck"} in report.failures
    assert report.clips["span_per"].isna().sum() == 2
    assert interval(report, "span_per").n == 6


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
    assert interval(again, "span_per").mean == pytest.approx(interval(reports[FLOOR], "span_per").mean, rel=1e-5)


def test_outside_of_the_span_nothing_counts(panel, recordings):
    """Noise everywhere but in the span and 0.3 s around it."""
    rng = np.random.default_rng(0)

    def noisy(recording: Recording) -> np.ndarray:
        wav = 0.1 * rng.standard_normal(len(recording.wav)).astype(np.float32)
        start, end = (round(time * RATE) for time in recording.span)
        keep = slice(max(0, start - 5000), end + 5000)
        wav[keep] = recording.wav[keep]
        return wav

    report = judged("noisy", recordings, noisy, RATE, panel)
    assert interval(report, "span_mcd").mean < 1e-6
    assert interval(report, "span_voicing_error").mean == 0
    assert interval(report, "span_per").mean < 0.3


def test_spans_are_those_of_the_recording_and_short_ones_are_named():
    clips = [Tones(2.5)[0], Tones(0.5)[1], Tones(2.5)[2]]
    found, skipped = with_spans(clips, RATE)
    assert [recording.clip for recording in found] == ["0", "2"]
    assert [recording.span for recording in found] == [draw_span(clips[n]["phones"], 2.5, 0, n) for n in (0, 2)]
    assert [name for name, _ in skipped] == ["1"]
    assert "no room" in skipped[0][1]


def test_a_system_that_changes_what_is_known_or_the_length_is_refused(panel, recordings):
    with pytest.raises(ValueError, match="outside of the span"):
        through(Space(), lambda known, span, _: known + 1)(recordings[0])
    with pytest.raises(InputError, match="length it was given"):
        judged("short", recordings, lambda recording: recording.wav[:-1], RATE, panel)
    with pytest.raises(InputError, match="no recording"):
        judged("none", [], lambda recording: recording.wav, RATE, panel)


def test_a_span_without_phones_has_no_phone_error_rate(panel, recordings):
    silent = replace(recordings[0], phones=[("_", 0.0)])
    values, reasons = panel.score(silent, silent.wav, RATE)
    assert math.isnan(values["span_per"])
    assert "no phone" in reasons["span_per"]
    assert values["span_mcd"] < 1e-6
