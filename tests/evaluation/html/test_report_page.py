"""The report page as a file: complete, safe, reproducible, within its size limit, explicit about small samples."""

import dataclasses
import html
import math
import re

import pandas
import pytest

from codec.evaluation.html.base import TIMING, Effect, PageError, SystemResult, read_timings
from codec.evaluation.html.grid import grid_view
from codec.evaluation.html.plots import bitrate_plot, curve_plot
from codec.evaluation.html.report import write_page
from codec.evaluation.html.sound import FLAC, OPUS
from codec.evaluation.html.tables import ALL_PAIRS, FEWEST, FEWEST_GROUPS, Scores, verdict
from codec.evaluation.html.write import write_pages
from codec.evaluation.metrics.intervals import Interval, paired
from codec.evaluation.report import Report, ReportError
from tests.helpers.systems import AUDIBLE, CLIPS, EVIL, FAST, grid, stoi_report


def text_of(path):
    """The text of a page in one line, without tags."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", path.read_text().partition("<body>")[2])).split())


def test_a_page_is_reproducible_complete_and_inert(results, tmp_path):
    path = write_page(tmp_path / "new" / "page.html", results, f"Rounding {EVIL}", grid())
    assert write_page(tmp_path / "b.html", results, f"Rounding {EVIL}", grid()).read_bytes() == path.read_bytes()
    source = path.read_text()
    assert "<script>document.title" not in source
    assert "<img src=x" not in source
    assert source.count("</script>") == 2  # of the data and of the page's script
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", source)  # no other file, no other place
    text = html.unescape(source)
    for result in results:
        assert result.name in text
        for failure in result.report.failures:
            assert f"<b>{failure['clip']}</b>, {failure['metric']}: {failure['reason']}" in text
    for run in grid().runs.itertuples():
        for words in (run.name, run.command, run.reason, f'<span class="state {run.state}">'):
            assert words in text
    assert "n too small (n = 1)" in text


@pytest.mark.parametrize(
    ("limit", "coding", "heard"), [(3.0, FLAC, AUDIBLE), (0.34, OPUS, AUDIBLE), (0.22, OPUS, 1), (0.1, "", 0)]
)
def test_the_limit_holds_and_the_worst_clips_have_audio(results, tmp_path, limit, coding, heard):
    path = write_page(tmp_path / "page.html", results, "Small", limit_mb=limit)
    text = html.unescape(path.read_text())
    assert path.stat().st_size < limit * 1e6
    worst = results[0].report.clips[:AUDIBLE].sort_values("stoi")["clip"]
    assert re.findall(r'class="clip-name">(.*)</span>', text) == list(worst[:heard])
    if not heard:
        assert f"{AUDIBLE} clips are left without sound" in text
        return
    assert coding in text
    assert (f"{AUDIBLE - heard} of {AUDIBLE} clips are left" if heard < AUDIBLE else "no clip is left") in text


def test_impossible_pages_are_refused_and_leave_no_file(results, tmp_path):
    for systems, options, error, word in (
        ([], {}, PageError, "at least one"),
        ([results[0], results[0]], {}, PageError, "unique names"),
        (results, {"limit_mb": 0.01}, PageError, "without any sound"),
        ([SystemResult("lost", results[0].report, tmp_path)], {}, ReportError, "does not exist"),
    ):
        with pytest.raises(error, match=word):
            write_page(tmp_path / "page.html", systems, "Refused", **options)
    assert not list(tmp_path.iterdir())


def test_a_system_without_scores_has_a_page(tmp_path):
    table = pandas.DataFrame({"clip": ["a"], "speaker": [None], "seconds": [1.0], "stoi": [math.nan]})
    report = Report(table, [{"clip": "a", "metric": "system", "reason": "Boom."}], {"kbps": None})
    assert "Boom." in text_of(write_page(tmp_path / "page.html", [SystemResult("one", report, tmp_path)], "One"))


def test_names_in_plots_are_no_formulas(results):
    name = r"train/$\frac{1}{$ $x$"
    steps = pandas.DataFrame({"step": [1.0, 2.0], name: [1.0, 2.0]})
    assert r"$\frac{1}{$ $x$" in html.unescape(curve_plot([dataclasses.replace(results[0], curves=steps)], name))
    assert "$x$" in bitrate_plot(results[:1], "$x$", [Interval(1, math.nan, math.nan, 1)])


@pytest.mark.parametrize(
    ("count", "speakers", "words"),
    [
        (1, ["a"], "1 clip; intervals are over clips of the only speaker"),
        (FEWEST - 1, ["", None], "speakers unknown: clips counted as independent"),
        (FEWEST, ["a", "b"], f"{FEWEST} clips; intervals are over 2 speakers."),
    ],
)
def test_sample_sizes_are_mentioned(tmp_path, count, speakers, words):
    """Few clips, and what is known of speakers, on a page of a report without audio."""
    result = SystemResult("one", stoi_report(count, speakers), tmp_path)
    text = text_of(write_page(tmp_path / "page.html", [result], "Few"))
    assert (f"too few clips (n = {count})" in text) == (count < FEWEST)
    assert words in text
    row = text.partition("Failures one ")[2].partition("; intervals are")[0]
    assert ("[" in row) == (count > 1)
    assert "nan" not in row
    assert "The reports come without sound." in text


@pytest.mark.parametrize(("pairs", "word"), [(2, "undecided"), (3, "better")])
def test_a_sweep_needs_three_pairs_for_a_verdict(tmp_path, pairs, word):
    sweep = grid()
    sweep.effects = [Effect("disc", "msd", "none", "stoi", 0.95, Interval(0.05, 0.04, 0.06, pairs, pairs))]
    first, second = grid_view(sweep)["factors"][0]["rows"]
    assert first[1][0]["mean"] == 0.9  # of the one run that has a score
    assert second[1][0]["verdict"] == word


def test_differences_are_paired_by_clip_name_and_antisymmetric(results):
    scores = Scores(results)
    assert scores.metrics == list(FAST)
    tables = [result.report.clips.set_index("clip") for result in results]
    for pair, row in scores.differences().items():
        i, j = map(int, pair.split(","))
        for metric, found in zip(FAST, row, strict=True):
            speakers = tables[i]["speaker"]
            assert found == paired(tables[i][metric], tables[j][metric], speakers)
            back = paired(tables[j][metric], tables[i][metric], speakers)
            assert [-found.mean, -found.high, -found.low] == pytest.approx([back.mean, back.low, back.high])
    many = [dataclasses.replace(results[0], name=f"system {n}") for n in range(ALL_PAIRS + 1)]
    assert set(Scores(many).differences()) == {f"{i},0" for i in range(1, len(many))}  # so many have one reference
    shuffled = results[1].report.clips.sample(frac=1, random_state=0).iloc[:-2]
    other = SystemResult("other", Report(shuffled, [], {}), results[1].folder)
    assert Scores([results[1], other]).differences()["0,1"][0] == (0, 0, 0, CLIPS - 2, 3)


def test_a_verdict_needs_an_interval_without_0_and_enough_clips():
    for interval, higher, word in (
        (Interval(1, 0.5, 1.5, FEWEST, FEWEST), True, "better"),
        (Interval(1, 0.5, 1.5, FEWEST, FEWEST_GROUPS), False, "worse"),
        (Interval(1, 0.5, 1.5, FEWEST - 1, FEWEST - 1), True, "undecided"),
        (Interval(1, 0.5, 1.5, 99, FEWEST_GROUPS - 1), True, "undecided"),
        (Interval(1, -0.5, 1.5, 99, 99), True, "undecided"),
        (Interval(math.nan, math.nan, math.nan, 0), True, "undecided"),
        (Interval(1, 0.5, 1.5, 99, 99), None, "undecided"),
    ):
        assert verdict(interval, higher) == word


def test_the_best_is_marked_only_if_the_second_is_worse(results):
    assert [Scores(results).best(m, range(3)) for m in range(3)] == [2, 2, 2]  # the most bits
    twin = dataclasses.replace(results[2], name="twin")
    assert [Scores([*results, twin]).best(m, range(4)) for m in range(3)] == [None] * 3


def test_timings_read_back_or_are_refused(results, tmp_path):
    assert read_timings(tmp_path) == {}
    timing = {"rtf_encode": 0.25, "rtf_decode": 0.5, "device": "CPU", "threads": 2}
    write_pages(tmp_path / "new", [dataclasses.replace(results[0], timing=timing), results[1]], "Timed")
    assert read_timings(tmp_path / "new") == {results[0].name: timing, results[1].name: {}}
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["report.html", TIMING]
    bad = ["", "[]", '{"a": 1}', '{"a": {"rtf_encode": "fast"}}', '{"a": {"rtf_decode": NaN}}', "[" * 200_000, "\xff"]
    for text in bad:
        (tmp_path / TIMING).write_text(text, encoding="latin-1")
        with pytest.raises(ReportError, match=TIMING):
            read_timings(tmp_path)
