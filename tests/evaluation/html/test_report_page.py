"""Properties of the page of a report: whole, safe, reproducible, small enough; and, in a browser, that it works."""

import dataclasses
import html
import io
import math
import re

import numpy as np
import pandas
import pytest
import soundfile
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from codec.evaluation.baselines.opus import RATES
from codec.evaluation.html.base import Entry, PageError
from codec.evaluation.html.pictures import spectrograms
from codec.evaluation.html.plots import bitrate_plot, curve_plot
from codec.evaluation.html.report import write_page
from codec.evaluation.html.sound import CODINGS, int16, opus
from codec.evaluation.html.tables import ALL_PAIRS, FEWEST, Scores, number, verdict
from codec.evaluation.metrics.intervals import Interval, paired
from codec.evaluation.report import Report, ReportError
from tests.helpers.browser import complaints, opened, requests, resize, table_rows
from tests.helpers.speech import RATE, clip
from tests.helpers.systems import CLIPS, EVIL, FAST, HEARD, grid


@pytest.fixture(scope="module")
def page(entries, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page") / "new" / "page.html", entries, f"Rounding {EVIL}", grid())


def until(chrome, script, seconds=10):
    return WebDriverWait(chrome, seconds, poll_frequency=0.05).until(lambda it: it.execute_script(f"return {script}"))


# --- without a browser


def test_the_same_input_gives_the_same_bytes(page, entries, tmp_path):
    again = write_page(tmp_path / "page.html", entries, f"Rounding {EVIL}", grid())
    assert again.read_bytes() == page.read_bytes()


def test_many_systems_are_compared_with_the_first_one(entries, tmp_path):
    silent = dataclasses.replace(entries[0].report, audio={})
    many = [dataclasses.replace(entries[0], name=f"system {n}", report=silent, baseline=False) for n in range(13)]
    text = write_page(tmp_path / "page.html", many, "Many").read_text()
    choice = text.partition('<select id="against">')[2].partition("</select>")[0]
    assert choice.count("<option") == 1
    assert "So many systems are compared with the first one only." in text


def test_every_failure_run_and_command_is_there(page, entries):
    text = html.unescape(page.read_text())
    for entry in entries:
        assert entry.name in text
        for failure in entry.report.failures:
            assert f"<b>{failure['clip']}</b>, {failure['metric']}: {failure['reason']}" in text
    for run in grid().runs.itertuples():
        assert run.name in text
        assert run.command in text
        assert run.reason in text
        assert f'<span class="state {run.state}">' in text
    assert "n too small (n = 1)" in text


def test_data_is_text_and_nothing_else(page):
    text = page.read_text()
    assert "<script>document.title" not in text
    assert "<img src=x" not in text
    assert text.count("</script>") == 2  # the data's and the script's own
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)  # no other file, no other place


@pytest.mark.parametrize(("limit", "coding", "heard"), [(3.0, 0, 3), (0.34, 2, 3), (0.22, 2, 1), (0.1, None, 0)])
def test_the_limit_holds_and_the_worst_clips_stay(entries, tmp_path, limit, coding, heard):
    path = write_page(tmp_path / "page.html", entries, "Small", limit_mb=limit)
    text = html.unescape(path.read_text())
    assert path.stat().st_size < limit * 1e6
    clips = entries[0].report.clips[:HEARD].sort_values("stoi")["clip"]
    assert re.findall(r'class="clip-name">(.*)</span>', text) == list(clips[:heard])
    if not heard:
        assert f"{HEARD} clips are left without sound" in text
        return
    assert CODINGS[coding].name in text
    left = f"{HEARD - heard} of {HEARD} clips are left" if heard < HEARD else "no clip is left"
    assert left in text


def test_a_page_too_small_for_its_numbers_is_refused(entries, tmp_path):
    with pytest.raises(PageError, match="without any sound"):
        write_page(tmp_path / "page.html", entries, "Tiny", limit_mb=0.01)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_a_page_is_refused(entries, tmp_path):
    with pytest.raises(PageError, match="at least one"):
        write_page(tmp_path / "page.html", [], "None")
    with pytest.raises(PageError, match="names of their own"):
        write_page(tmp_path / "page.html", [entries[0], entries[0]], "Twice")
    lost = Entry("lost", entries[0].report, tmp_path)
    with pytest.raises(ReportError, match="sound file that is not there"):
        write_page(tmp_path / "page.html", [lost], "Lost")


def test_one_system_without_sound_rates_or_scores_is_a_page(tmp_path):
    table = pandas.DataFrame({"clip": ["a"], "speaker": [None], "seconds": [1.0], "stoi": [math.nan]})
    report = Report(table, [{"clip": "a", "metric": "system", "reason": "Boom."}], {"kbps": None})
    text = write_page(tmp_path / "page.html", [Entry("one", report, tmp_path)], "One").read_text()
    assert "The reports come without sound." in text
    assert "Boom." in text


def test_names_in_plots_are_no_formulas(entries):
    name = r"train/$\frac{1}{$ $x$"
    steps = pandas.DataFrame({"step": [1.0, 2.0], name: [1.0, 2.0]})
    assert r"$\frac{1}{$ $x$" in html.unescape(curve_plot([dataclasses.replace(entries[0], curves=steps)], name))
    assert "$x$" in bitrate_plot(entries[:1], "$x$", [Interval(1, math.nan, math.nan, 1)])


def test_differences_are_paired_and_turn_around(entries):
    scores = Scores(entries)
    assert scores.metrics == list(FAST)
    tables = [entry.report.clips.set_index("clip") for entry in entries]
    for pair, row in scores.differences().items():
        i, j = map(int, pair.split(","))
        for metric, found in zip(FAST, row, strict=True):
            assert found == paired(tables[i][metric], tables[j][metric])
            back = paired(tables[j][metric], tables[i][metric])
            assert [-found.mean, -found.high, -found.low] == pytest.approx([back.mean, back.low, back.high])


def test_clips_are_matched_by_name(entries):
    shuffled = entries[1].report.clips.sample(frac=1, random_state=0).iloc[:-2]
    other = Entry("other", Report(shuffled, [], {}), entries[1].folder)
    difference = Scores([entries[1], other]).differences()["0,1"][0]
    assert (difference.mean, difference.low, difference.high, difference.n) == (0, 0, 0, CLIPS - 2)


def test_many_systems_are_compared_with_the_first(entries):
    many = [Entry(f"system {i}", entries[i % 3].report, entries[i % 3].folder) for i in range(ALL_PAIRS + 1)]
    assert set(Scores(many).differences()) == {f"{i},0" for i in range(1, len(many))}
    assert len(Scores(many[1:]).differences()) == ALL_PAIRS * (ALL_PAIRS - 1) // 2


def test_a_verdict_needs_an_interval_without_0_and_enough_clips():
    assert verdict(Interval(1, 0.5, 1.5, FEWEST), True) == "better"
    assert verdict(Interval(1, 0.5, 1.5, FEWEST), False) == "worse"
    assert verdict(Interval(-1, -1.5, -0.5, FEWEST), False) == "better"
    assert verdict(Interval(1, 0.5, 1.5, FEWEST - 1), True) == "undecided"
    assert verdict(Interval(1, -0.5, 1.5, 99), True) == "undecided"
    assert verdict(Interval(math.nan, math.nan, math.nan, 0), True) == "undecided"
    assert verdict(Interval(1, 0.5, 1.5, 99), None) == "undecided"


def test_the_best_is_named_only_when_the_next_is_worse(entries):
    scores = Scores(entries)
    everyone = range(len(entries))
    assert [scores.best(m, everyone) for m in range(3)] == [2, 2, 2]  # the most bits
    twin = Entry("twin", entries[2].report, entries[2].folder)
    assert [Scores([*entries, twin]).best(m, range(4)) for m in range(3)] == [None] * 3


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 44_100])
def test_opus_is_the_clip_and_the_same_every_time(rate):
    wav = int16(clip(0, 1.3, rate)["wav"][0].numpy())
    file = opus(wav, rate, 64)
    assert file == opus(wav, rate, 64)
    decoded, known = soundfile.read(io.BytesIO(file))
    assert known == (rate if rate in RATES else {22_050: 24_000, 44_100: 48_000}[rate])
    assert len(decoded) / known == pytest.approx(1.3, abs=0.001)
    assert len(file) * 8 / 1.3 < 100_000
    assert np.abs(np.fft.rfft(decoded))[: len(decoded) // 8].argmax() / 1.3 == pytest.approx(110, abs=5)


def test_spectrograms_share_a_scale_and_show_the_band():
    wav = int16(clip(0)["wav"][0].numpy())
    loud, quiet = spectrograms([(wav, RATE), (wav // 100, RATE)])
    assert loud[:4] == b"RIFF"
    assert len(quiet) < len(loud)
    assert all(spectrograms([(np.zeros(10, np.int16), RATE)]))  # shorter than a window, and silent


# --- in a browser


def test_it_loads_without_errors_requests_or_injected_scripts(chrome, page):
    opened(chrome, page)
    assert chrome.title == f"Rounding {EVIL}"
    assert requests(chrome) == []
    assert chrome.execute_script("return document.querySelectorAll('script').length") == 2
    broken = "[...document.images].filter((i) => !i.src.startsWith('data:image/webp')).length"
    assert chrome.execute_script(f"return {broken}") == 0
    plots = chrome.execute_script("return document.querySelectorAll('figure svg[role=img]').length")
    assert plots == len(FAST) + 2  # and two curves
    assert complaints(chrome) == []


def test_differences_follow_the_chosen_system(chrome, page, entries):
    opened(chrome, page)
    scores = Scores(entries)
    names = [entry.name for entry in entries]
    data = chrome.execute_script("return data.metrics.map((m) => m.digits)")
    box = chrome.find_element(By.ID, "with-baselines")
    assert not box.is_selected()
    assert [row[0] for row in table_rows(chrome, "difference-table")] == [names[1]]
    box.click()
    for against in (1, 2, 0):
        Select(chrome.find_element(By.ID, "against")).select_by_index(against)
        rows = table_rows(chrome, "difference-table")
        assert [row[0] for row in rows] == [name for i, name in enumerate(names) if i != against]
        for row in rows:
            for m, text in enumerate(row[1:]):
                found = scores.difference(names.index(row[0]), against, m)
                mean, low, high = (number(value, data[m], sign=True) for value in found[:3])
                word = verdict(found, m < 2)  # the mel distance is the third
                assert text.split("\n")[:2] == [mean, f"[{low}, {high}]"]
                assert text.split("\n")[2].startswith(word)
    assert complaints(chrome) == []


def test_clips_sort_by_any_column_and_filter(chrome, page, entries):
    opened(chrome, page)
    stoi = entries[0].report.clips["stoi"]

    def shown(column):
        return [row[column] for row in table_rows(chrome, "clip-table")]

    assert shown(3) == [f"{value:.3f}" for value in sorted(stoi)]  # worst first
    heads = chrome.find_elements(By.CSS_SELECTOR, "#clip-table thead th")
    assert heads[3].get_attribute("aria-sort") == "ascending"
    heads[3].find_element(By.TAG_NAME, "button").click()
    assert shown(3) == [f"{value:.3f}" for value in sorted(stoi, reverse=True)]
    assert heads[3].get_attribute("aria-sort") == "descending"
    heads[0].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert heads[0].get_attribute("aria-sort") == "ascending"
    assert heads[3].get_attribute("aria-sort") == "none"
    assert len(set(shown(0))) == CLIPS
    Select(chrome.find_element(By.ID, "system")).select_by_index(1)
    assert sorted(shown(3)) == [f"{value:.3f}" for value in sorted(entries[1].report.clips["stoi"])]
    chrome.find_element(By.ID, "filter").send_keys("take 4")
    assert shown(0) == ["s0/take 4"]
    assert complaints(chrome) == []


PLAYER = "(Player.loaded[0] ?? {})"  # the one that was used last


def test_keys_play_switch_and_seek(chrome, page):
    opened(chrome, page)
    box = chrome.find_element(By.CSS_SELECTOR, ".player")
    pressed = "[...document.querySelectorAll('.player')[0].querySelectorAll('.choose')].map((b) => b.ariaPressed)"
    box.send_keys("2")
    assert chrome.execute_script(f"return {pressed}") == ["false", "false", "true", "false"]
    box.send_keys("l", " ")  # a loop: a slow machine would miss the end of the clip
    until(chrome, f"{PLAYER}.loop && {PLAYER}.sounding && {PLAYER}.position > 0")
    box.send_keys("1")
    gains = f"{PLAYER}.voices.map((v) => Math.round(v.gain.gain.value))"
    until(chrome, f"JSON.stringify({gains}) === '[0,1,0,0]'")
    assert chrome.execute_script(f"return {PLAYER}.voices.length") == 4  # all run on, one is heard
    box.send_keys(" ")
    assert not chrome.execute_script(f"return {PLAYER}.sounding")
    at = chrome.execute_script(f"return {PLAYER}.position")
    assert at == chrome.execute_script(f"return {PLAYER}.position")
    box.send_keys(Keys.HOME)
    until(chrome, f"{PLAYER}.position === 0")
    box.send_keys(Keys.ARROW_RIGHT)
    until(chrome, f"{PLAYER}.position === 0.5")
    box.send_keys(Keys.ARROW_DOWN, "L")
    until(chrome, f"{PLAYER}.heard === 2 && !{PLAYER}.loop")
    box.send_keys("n")
    assert chrome.execute_script("return document.activeElement.closest('.clip').id") == "clip-1"
    assert complaints(chrome) == []


def test_a_click_into_a_spectrogram_goes_there(chrome, page):
    opened(chrome, page)
    chrome.find_elements(By.CSS_SELECTOR, ".picture")[2].click()  # selenium clicks the middle
    until(chrome, f"{PLAYER}.heard === 2 && {PLAYER}.position > 0")
    share = f"{PLAYER}.position / {PLAYER}.duration"
    assert chrome.execute_script(f"return {share}") == pytest.approx(0.5, abs=0.01)
    head = "document.querySelectorAll('.player')[0].style.getPropertyValue('--at')"
    assert float(chrome.execute_script(f"return {head}")) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("limit", [30.0, 0.34])
def test_every_sound_and_picture_decodes(chrome, entries, tmp_path, limit):
    path = write_page(tmp_path / "page.html", entries, "Sound", limit_mb=limit)
    opened(chrome, path)
    script = """
      const done = arguments[0];
      const sounds = [...document.querySelectorAll("audio")].map((audio) => new Promise((good, bad) => {
        audio.onloadedmetadata = () => good([audio.readyState, audio.duration, audio.getAttribute("src").slice(0, 15)]);
        audio.onerror = () => bad(audio.error.message);
        audio.preload = "metadata";
        audio.load();
      }));
      document.querySelectorAll("details").forEach((box) => { box.open = true; });
      const pictures = Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)));
      const addresses = (box) => [...box.querySelectorAll("audio")].map((audio) => audio.getAttribute("src"));
      const players = [...document.querySelectorAll(".player")].map((box) => new Player(addresses(box), () => {}));
      const loaded = players.map((p) => p.load().then(() => p.buffers.map((b) => b.duration)));
      Promise.all([Promise.all(sounds), pictures, Promise.all(loaded)]).then(done, (e) => done(String(e)));
    """
    sounds, pictures, buffers = chrome.execute_async_script(script)
    kinds = {kind for _, _, kind in sounds}
    assert kinds == ({"data:audio/flac"} if limit == 30 else {"data:audio/ogg;"})
    known = dict(zip(entries[0].report.clips["clip"], entries[0].report.clips["seconds"], strict=True))
    shown = chrome.execute_script("return [...document.querySelectorAll('.clip-name')].map((c) => c.textContent)")
    assert len(shown) == HEARD
    seconds = [known[clip] for clip in shown for _ in range(4)]
    assert all(state >= 1 for state, _, _ in sounds)
    assert [duration for _, duration, _ in sounds] == pytest.approx(seconds, abs=0.03)
    assert [d for group in buffers for d in group] == pytest.approx(seconds, abs=0.03)
    assert len(pictures) == len(seconds)
    assert min(pictures) > 0
    assert complaints(chrome) == []


def test_a_phone_sees_no_sideways_scroll(chrome, page):
    opened(chrome, page)
    resize(chrome, 360, 740, phone=True)
    width, inner = chrome.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert inner == 360
    assert width <= inner
    assert chrome.execute_script("return document.querySelector('.wide table').offsetWidth") > 0


def test_the_keyboard_reaches_every_control_in_the_order_of_the_page(chrome, page):
    opened(chrome, page)
    reached = []
    for _ in range(400):
        chrome.switch_to.active_element.send_keys(Keys.TAB)
        element = chrome.execute_script(
            "const e = document.activeElement; if (e === document.body) return null;"
            "const s = getComputedStyle(e); return [e.offsetTop, e.className, e.tagName, s.outlineStyle]"
        )
        if element is None:
            break
        reached.append(element)
    assert {"A", "SELECT", "INPUT", "BUTTON", "SUMMARY"} <= {tag for _, _, tag, _ in reached}
    assert "player" in {name for _, name, _, _ in reached}
    assert all(outline != "none" for _, _, _, outline in reached)  # the focus is seen
