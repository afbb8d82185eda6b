"""A page says how little its numbers rest on: few clips, few speakers, few pairs of runs, sound of a few clips."""

import dataclasses
import html
import math
import re

import pandas
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from codec.evaluation.html.base import Effect, Entry
from codec.evaluation.html.grid import grid_view
from codec.evaluation.html.report import write_page
from codec.evaluation.html.tables import FEWEST
from codec.evaluation.metrics.intervals import Interval
from codec.evaluation.report import Report
from tests.helpers.browser import complaints, opened, table_rows
from tests.helpers.systems import CLIPS, HEARD, grid


def few(count, speakers=("s",)):
    """A report of so many clips, of these speakers in turn."""
    rows = [[f"c{i}", speakers[i % len(speakers)], 1.0, 0.5 + i / 100] for i in range(count)]
    return Report(pandas.DataFrame(rows, columns=["clip", "speaker", "seconds", "stoi"]), [], {"kbps": 1.0})


def words(path):
    """The text of a page in one line, without tags."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", path.read_text().partition("<body>")[2])).split())


@pytest.mark.parametrize("count", [1, FEWEST - 1, FEWEST])
def test_intervals_of_few_clips_say_so(tmp_path, count):
    text = words(write_page(tmp_path / "page.html", [Entry("one", few(count), tmp_path)], "Few"))
    assert (f"too few clips (n = {count})" in text) == (count < FEWEST)
    row = text.partition("Failures one ")[2].partition(" Clips count")[0]
    assert ("[" in row) == (count > 1)
    assert "nan" not in row


@pytest.mark.parametrize(
    ("speakers", "said"),
    [(["a", "b"], "Here 2 speakers said 8 clips."), (["a"], "Here 1 speaker"), (["a", None], None)],
)
def test_speakers_are_counted_where_they_are_known(tmp_path, speakers, said):
    text = words(write_page(tmp_path / "page.html", [Entry("one", few(8, speakers), tmp_path)], "Speakers"))
    assert "Clips count as independent" in text
    assert said in text if said else "Here" not in text


def test_it_says_of_how_many_clips_sound_was_kept(entries, tmp_path):
    text = words(write_page(tmp_path / "page.html", entries, "Sound"))
    said = f"Sound was kept of the first {HEARD} of {CLIPS} clips scored; among these, the worst of"
    assert said in text
    clips, audio = entries[0].report.clips, entries[0].report.audio
    every = dataclasses.replace(entries[0].report, clips=clips[clips["clip"].isin(audio)])
    text = words(write_page(tmp_path / "page.html", [dataclasses.replace(entries[0], report=every)], "All"))
    assert f"Sound was kept of all {HEARD} clips scored;" in text
    last = dataclasses.replace(entries[0].report, audio={list(audio)[-1]: audio[list(audio)[-1]]})
    text = words(write_page(tmp_path / "page.html", [dataclasses.replace(entries[0], report=last)], "Last"))
    assert f"Sound was kept of 1 of {CLIPS} clips scored;" in text


@pytest.mark.parametrize(("pairs", "word"), [(1, ""), (2, "undecided"), (3, "better")])
def test_a_sweep_needs_three_pairs_for_a_verdict(tmp_path, pairs, word):
    low = 0.04 if pairs > 1 else math.nan
    sweep = grid()
    sweep.effects = [Effect("disc", "msd", "none", "stoi", 0.95, Interval(0.05, low, low + 0.02, pairs))]
    first, second = grid_view(sweep)["factors"][0]["rows"]
    assert first[1][0]["mean"] == 0.9  # of the one run that has a score
    assert second[1][0]["verdict"] == word
    text = words(write_page(tmp_path / "page.html", [Entry("one", few(8), tmp_path)], "Sweep", sweep))
    assert "With fewer than 3 pairs, better or worse is not said." in text
    assert "Of twenty effects that are none" in text


def test_differences_of_few_clips_say_so_on_both_sides(chrome, tmp_path):
    for count, shown in ((1, ["better", "worse"]), (3, ["[", "better", "worse"])):
        systems = [Entry("one", few(count), tmp_path), Entry("two", few(count), tmp_path)]
        systems[1].report.clips["stoi"] += 0.1
        opened(chrome, write_page(tmp_path / "page.html", systems, "Few"))
        for against in (0, 1):
            Select(chrome.find_element(By.ID, "against")).select_by_index(against)
            [[_, cell]] = table_rows(chrome, "difference-table")
            assert cell.split("\n")[0] == ("−0.10" if against else "+0.10")
            assert [word for word in shown if word in cell] == shown[:-2]
            assert f"too few clips (n = {count})" in cell
    assert complaints(chrome) == []
