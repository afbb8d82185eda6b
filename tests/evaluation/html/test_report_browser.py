"""The report page in Chromium: no errors, no requests, and working tables, players and keys."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from codec.evaluation.html.base import SystemResult
from codec.evaluation.html.report import write_page
from codec.evaluation.html.tables import Scores, number, verdict
from tests.helpers.browser import evaluate, open_page, problems, resize, table_rows, wait_until
from tests.helpers.systems import AUDIBLE, CLIPS, EVIL, FAST, grid, stoi_report

pytestmark = pytest.mark.browser
PLAYER = "(Player.loaded[0] ?? {})"  # the one that was used last


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page") / "page.html", results, f"Rounding {EVIL}", grid())


@pytest.fixture
def page(chrome, path):
    open_page(chrome, path)
    yield chrome
    assert problems(chrome) == []


def test_it_loads_all_plots_and_pictures_and_no_other_script(page):
    assert page.title == f"Rounding {EVIL}"
    assert evaluate(page, "document.querySelectorAll('script').length") == 2
    assert evaluate(page, "[...document.images].every((i) => i.src.startsWith('data:image/webp'))")
    assert evaluate(page, "document.querySelectorAll('figure svg[role=img]').length") == len(FAST) + 2  # two curves
    resize(page, 360, 740, phone=True)  # does not scroll sideways
    assert evaluate(page, "document.documentElement.scrollWidth") <= 360


def test_differences_follow_the_chosen_system(page, results):
    scores, names = Scores(results), [result.name for result in results]
    digits = evaluate(page, "data.metrics.map((m) => m.digits)")
    box = page.find_element(By.ID, "with-baselines")
    assert not box.is_selected()
    assert [row[0] for row in table_rows(page, "difference-table")] == [names[1]]
    box.click()
    for against in (1, 2, 0):
        Select(page.find_element(By.ID, "against")).select_by_index(against)
        rows = table_rows(page, "difference-table")
        assert [row[0] for row in rows] == [name for i, name in enumerate(names) if i != against]
        for row in rows:
            for m, text in enumerate(row[1:]):
                found = scores.difference(names.index(row[0]), against, m)
                mean, low, high = (number(value, digits[m], sign=True) for value in found[:3])
                assert text.split("\n")[:2] == [mean, f"[{low}, {high}]"]
                assert text.split("\n")[2].startswith(verdict(found, m < 2))  # the mel distance is the third


@pytest.mark.parametrize("count", [1, 3])
def test_differences_of_few_clips_are_marked_in_both_directions(chrome, tmp_path, count):
    reports = {"one": stoi_report(count), "two": stoi_report(count, offset=0.1)}
    systems = [SystemResult(name, report, tmp_path) for name, report in reports.items()]
    open_page(chrome, write_page(tmp_path / "page.html", systems, "Few"))
    for against, difference in enumerate(("+0.10", "−0.10")):
        Select(chrome.find_element(By.ID, "against")).select_by_index(against)
        [[_, cell]] = table_rows(chrome, "difference-table")
        assert cell.startswith(difference)
        assert ("[" in cell) == (count > 1)
        assert f"too few clips (n = {count})" in cell


def test_clips_sort_by_any_column_and_filter(page, results):
    def shown(column):
        return [row[column] for row in table_rows(page, "clip-table")]

    stoi = [f"{value:.3f}" for value in sorted(results[0].report.clips["stoi"])]
    assert shown(3) == stoi  # worst first
    heads = page.find_elements(By.CSS_SELECTOR, "#clip-table thead th")
    heads[3].find_element(By.TAG_NAME, "button").click()
    assert shown(3) == stoi[::-1]
    assert heads[3].get_attribute("aria-sort") == "descending"
    heads[0].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert [heads[i].get_attribute("aria-sort") for i in (0, 3)] == ["ascending", "none"]
    assert len(set(shown(0))) == CLIPS
    Select(page.find_element(By.ID, "system")).select_by_index(1)
    assert sorted(shown(3)) == [f"{value:.3f}" for value in sorted(results[1].report.clips["stoi"])]
    page.find_element(By.ID, "filter").send_keys("take 4")
    assert shown(0) == ["s0/take 4"]


def test_keys_and_clicks_play_switch_and_seek(page):
    box = page.find_element(By.CSS_SELECTOR, ".player")
    box.send_keys("2")
    pressed = "[...document.querySelector('.player').querySelectorAll('.choose')].map((b) => b.ariaPressed)"
    assert evaluate(page, pressed) == ["false", "false", "true", "false"]
    box.send_keys("l", " ")  # a loop: a slow machine would miss the end of the clip
    wait_until(page, f"{PLAYER}.loop && {PLAYER}.sounding && {PLAYER}.position > 0")
    box.send_keys("1")
    wait_until(page, f"{PLAYER}.voices.map((v) => Math.round(v.gain.gain.value)).join() === '0,1,0,0'")
    box.send_keys(" ")
    assert not evaluate(page, f"{PLAYER}.sounding")
    at = evaluate(page, f"{PLAYER}.position")
    assert at == evaluate(page, f"{PLAYER}.position")
    for key, state in (
        (Keys.HOME, "position === 0"),
        (Keys.ARROW_RIGHT, "position === 0.5"),
        (Keys.ARROW_DOWN, "active === 2"),
        ("L", "loop === false"),
    ):
        box.send_keys(key)
        wait_until(page, f"{PLAYER}.{state}")
    box.send_keys("n")
    assert evaluate(page, "document.activeElement.closest('.clip').id") == "clip-1"
    page.find_elements(By.CSS_SELECTOR, ".picture")[2].click()  # in the middle of a spectrogram
    wait_until(page, f"{PLAYER}.active === 2 && {PLAYER}.position > 0")
    assert evaluate(page, f"{PLAYER}.position / {PLAYER}.duration") == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(("limit", "mime"), [(30.0, "data:audio/flac"), (0.34, "data:audio/ogg;")])
def test_every_audio_file_and_picture_decodes(chrome, results, tmp_path, limit, mime):
    open_page(chrome, write_page(tmp_path / "page.html", results, "Sound", limit_mb=limit))
    script = """
      const done = arguments[0];
      document.querySelectorAll("details").forEach((box) => { box.open = true; });
      const pictures = Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)));
      const addresses = (box) => [...box.querySelectorAll("audio")].map((audio) => audio.getAttribute("src"));
      const players = [...document.querySelectorAll(".player")].map((box) => new Player(addresses(box), () => {}));
      const loaded = players.map((p) => p.load().then(() => p.buffers.map((b) => b.duration)));
      Promise.all([pictures, Promise.all(loaded)]).then(done, (e) => done(String(e)));
    """
    pictures, buffers = chrome.execute_async_script(script)
    clips = results[0].report.clips.set_index("clip")["seconds"]
    shown = evaluate(chrome, "[...document.querySelectorAll('.clip-name')].map((c) => c.textContent)")
    assert len(shown) == AUDIBLE
    seconds = [clips[clip] for clip in shown for _ in range(4)]
    assert evaluate(chrome, f"[...document.querySelectorAll('audio')].every((a) => a.src.startsWith('{mime}'))")
    assert [d for group in buffers for d in group] == pytest.approx(seconds, abs=0.03)
    assert len(pictures) == len(seconds)
    assert min(pictures) > 0
    assert problems(chrome) == []


def test_the_keyboard_reaches_every_control_with_a_visible_focus(page):
    reached = []
    for _ in range(400):
        page.switch_to.active_element.send_keys(Keys.TAB)
        element = page.execute_script(
            "const e = document.activeElement; if (e === document.body) return null;"
            "return [e.className, e.tagName, getComputedStyle(e).outlineStyle]"
        )
        if element is None:
            break
        reached.append(element)
    names, tags, outlines = map(set, zip(*reached, strict=True))
    assert {"A", "SELECT", "INPUT", "BUTTON", "SUMMARY"} <= tags
    assert "player" in names
    assert "none" not in outlines
