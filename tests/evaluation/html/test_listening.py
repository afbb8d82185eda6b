"""Properties of the listening test: blind, complete, and read back as it was answered."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pandas
import pytest
import soundfile
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from codec.__main__ import main
from codec.evaluation.html.base import PageError
from codec.evaluation.html.listening import MOST, lowpass, write_listening_test
from codec.evaluation.html.ratings import ANCHOR, FORMAT, REFERENCE, read_results, screened, summarise
from tests.helpers.browser import complaints, opened, requests, resize


@pytest.fixture(scope="module")
def page(entries, tmp_path_factory):
    return write_listening_test(tmp_path_factory.mktemp("test") / "test.html", entries, "Which is closer?", clips=2)


def data_of(path):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(found[1])


def result(listener="a", test="t", scores=None):
    scores = scores or {"x": [{REFERENCE: 100, "b": 60}, {REFERENCE: 95, "b": 40}]}["x"]
    trials = [
        {
            "clip": f"clip {i}",
            "conditions": [{"system": s, "score": v, "position": 1, "plays": 1} for s, v in t.items()],
        }
        for i, t in enumerate(scores)
    ]
    return {"format": FORMAT, "test": test, "title": "T", "seed": 0, "listener": listener, "trials": trials}


def written(folder, *results):
    paths = []
    for i, content in enumerate(results):
        paths.append(folder / f"{i}.json")
        paths[-1].write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


def test_the_anchor_stops_at_4_khz():
    rate = 16_000
    wave = np.random.default_rng(0).normal(0, 3000, 5 * rate).astype(np.int16)
    low, _ = lowpass((wave, rate))
    assert len(low) == len(wave)
    gain = 20 * np.log10(np.abs(np.fft.rfft(low)) / np.abs(np.fft.rfft(wave)).mean() + 1e-12)
    at = lambda hertz: slice(5 * hertz - 250, 5 * hertz + 250)  # noqa: E731
    reference = 20 * np.log10(np.abs(np.fft.rfft(wave)) / np.abs(np.fft.rfft(wave)).mean())
    assert abs(np.mean(gain[at(3300)] - reference[at(3300)])) < 0.1
    assert np.mean(gain[at(4200)] - reference[at(4200)]) < -45
    assert np.corrcoef(low, wave)[0, 1] > 0.6  # no delay


def test_names_are_nowhere_to_read(page, entries):
    text = page.read_text()
    for name in [*(entry.name for entry in entries), ANCHOR, "bits"]:
        assert name not in text
    key = json.loads(base64.b64decode(data_of(page)["key"]))
    assert all(sorted(systems) == sorted([REFERENCE, ANCHOR, *(e.name for e in entries)]) for _, systems in key)


def test_each_sound_is_the_systems_own(page, entries):
    data = data_of(page)
    key = json.loads(base64.b64decode(data["key"]))
    folders = {entry.name: entry for entry in entries}
    for (clip, systems), trial in zip(key, data["trials"], strict=True):
        assert systems[trial["reference"]] == REFERENCE
        for system, sound in zip(systems, trial["sounds"], strict=True):
            if system == ANCHOR:
                continue
            entry = folders.get(system, entries[0])
            file = entry.report.audio[clip]["reference" if system == REFERENCE else "decoded"]
            wav, _ = soundfile.read(io.BytesIO(base64.b64decode(sound.partition(",")[2])))
            np.testing.assert_array_equal(wav, soundfile.read(entry.folder / file)[0])


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_orders(page, entries, tmp_path):
    again = write_listening_test(tmp_path / "a.html", entries, "Which is closer?", clips=2)
    assert again.read_bytes() == page.read_bytes()
    other = write_listening_test(tmp_path / "b.html", entries, "Which is closer?", clips=2, seed=1)
    assert data_of(other)["key"] != data_of(page)["key"]


def test_what_cannot_be_a_test_is_refused(entries, tmp_path):
    path = tmp_path / "test.html"
    with pytest.raises(PageError, match="1 to 10 systems"):
        write_listening_test(path, [], "None")
    with pytest.raises(PageError, match="names of their own"):
        write_listening_test(path, [entries[0], entries[0]], "Twice")
    with pytest.raises(PageError, match="finds room"):
        write_listening_test(path, entries, "Small", limit_mb=0.03)
    assert write_listening_test(path, entries, "Smaller", limit_mb=0.5).stat().st_size < 0.5e6


def systems_of(path):
    """The conditions of the first trial, in alphabetical order."""
    return sorted(json.loads(base64.b64decode(data_of(path)["key"]))[0][1])


def renamed(entry, name, **facts):
    report = dataclasses.replace(entry.report, facts=entry.report.facts | facts)
    return dataclasses.replace(entry, name=name, report=report)


def test_baselines_that_are_reference_and_anchor_come_once(entries, tmp_path):
    path = tmp_path / "test.html"
    same, low = renamed(entries[0], "identity"), renamed(entries[1], "low_pass", cutoff_hz=3500.0)
    write_listening_test(path, [same, low, entries[2]], "Anchors", clips=1)
    assert systems_of(path) == sorted(["low_pass", REFERENCE, entries[2].name])
    low = renamed(entries[1], "low_pass", cutoff_hz=7000.0)  # another anchor
    write_listening_test(path, [same, low], "Another", clips=1)
    assert systems_of(path) == sorted(["low_pass", REFERENCE, ANCHOR])


def test_what_is_left_out_takes_no_room(entries, tmp_path):
    path = tmp_path / "test.html"
    same, low = renamed(entries[0], "identity"), renamed(entries[1], "low_pass")
    many = [renamed(entries[2], f"system {i}") for i in range(MOST - 2)]
    write_listening_test(path, [same, *many], "Ten", clips=1)
    assert len(systems_of(path)) == MOST
    write_listening_test(path, [same, low, *many], "Ten and the anchor", clips=1)
    assert len(systems_of(path)) == MOST
    with pytest.raises(PageError, match="1 to 11 systems, not 12"):
        write_listening_test(path, [same, low, *many, renamed(low, "more")], "Twelve")
    with pytest.raises(PageError, match="1 to 10 systems, not 0"):
        write_listening_test(path, [same], "Nobody")


def test_an_anchor_needs_something_to_take_away():
    with pytest.raises(PageError, match="8000 Hz or more"):
        lowpass((np.zeros(7000, np.int16), 7000))
    assert len(lowpass((np.zeros(8000, np.int16), 8000))[0]) == 8000


def test_results_that_are_none_are_named(tmp_path):
    for content in ("", "[]", "{}", json.dumps(result() | {"format": "x"}), json.dumps(result(scores=[{"a": 101}]))):
        with pytest.raises(ValueError, match=r"0\.json"):
            read_results(written(tmp_path, content))
    for score in (-1, None, "90", True):
        with pytest.raises(ValueError, match="between 0 and 100"):
            read_results(written(tmp_path, result(scores=[{"a": score}])))
    with pytest.raises(ValueError, match="second result of listener a"):
        read_results(written(tmp_path, result(), result()))
    with pytest.raises(ValueError, match="different tests"):
        read_results(written(tmp_path, result("a"), result("b", test="u")))
    with pytest.raises(ValueError, match=r"none\.json cannot be read"):
        read_results([tmp_path / "none.json"])
    with pytest.raises(ValueError, match="no result"):
        read_results([])


@pytest.mark.parametrize(("missed", "stays"), [(0, True), (1, True), (2, False)])
def test_who_misses_the_hidden_reference_is_screened(tmp_path, missed, stays):
    """One of eight trials is 12.5 %, two are 25 %; 90 itself is no miss."""
    trials = [{REFERENCE: 89 if i < missed else 90, "b": 50} for i in range(8)]
    results = read_results(
        written(tmp_path, result("good", scores=[{REFERENCE: 100, "b": 1}] * 8), result("x", scores=trials))
    )
    kept, excluded = screened(results)
    assert excluded == ([] if stays else ["x"])
    assert set(kept["listener"]) == {"good", "x"} - set(excluded)


def test_the_command_screens_and_sums_up(tmp_path, capsys):
    good = [result(name, scores=[{REFERENCE: 100, "b": 40}, {REFERENCE: 98, "b": 60}]) for name in ("anna", "ben")]
    deaf = result("carl", scores=[{REFERENCE: 20, "b": 100}] * 2)
    main(["ratings", *map(str, written(tmp_path, *good, deaf)), "--against", "b"])
    shown = capsys.readouterr().out
    assert "excluded" in shown.splitlines()[0]
    assert "carl" in shown.splitlines()[0]
    row = next(line.split() for line in shown.splitlines() if line.split()[:1] == [REFERENCE])
    assert row[1:6] == ["99.0", "99.0", "99.0", "2", "listeners"]
    with pytest.raises(SystemExit, match="no listener is left"):
        main(["ratings", *map(str, written(tmp_path, deaf))])


def test_a_summary_counts_listeners_and_pairs_them():
    random = np.random.default_rng(0)
    rows = []
    for listener in range(12):
        taste = random.normal(0, 10)
        for clip in range(6):
            rows += [[f"l{listener}", f"c{clip}", s, v + taste + random.normal()] for s, v in (("a", 60), ("b", 58))]
    results = pandas.DataFrame(rows, columns=["listener", "clip", "system", "score"])
    table = summarise(results, against="b").set_index("system")
    assert list(table["n"]) == [12, 12]
    assert table["high"]["a"] - table["low"]["a"] > 4  # listeners differ
    assert table["low"]["a"] < table["mean"]["b"]  # so the means do not tell them apart
    assert 1 < table["difference_low"]["a"] < 2 < table["difference_high"]["a"] < 3  # the pairs do
    assert set(summarise(results[results["listener"] == "l0"])["over"]) == {"clips"}
    with pytest.raises(ValueError, match="no system c"):
        summarise(results, against="c")


def test_the_test_by_keyboard_from_start_to_results(chrome, page, entries, tmp_path):
    opened(chrome, page)
    field = chrome.find_element(By.ID, "listener")
    field.send_keys("Ada <b>", Keys.ENTER)
    until = WebDriverWait(chrome, 10, poll_frequency=0.05).until
    given = []
    for trial in range(2):
        assert chrome.find_element(By.ID, "progress").text == f"Clip {trial + 1} of 2"
        names = [REFERENCE, ANCHOR, *(entry.name for entry in entries)]
        body = chrome.find_element(By.TAG_NAME, "body").get_attribute("outerHTML")
        body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
        assert not [name for name in names[1:] if name in body]
        press(chrome, Keys.ENTER)
        assert "Not rated yet: 1, 2, 3, 4, 5." in chrome.find_element(By.ID, "trouble").text
        press(chrome, " ")
        until(lambda it: it.execute_script("return trial.player.position > 0.02"))
        scores = []
        for version in range(5):
            press(chrome, str(version + 1))
            assert chrome.execute_script("return trial.player.heard") == version + 1
            press(chrome, [Keys.END, Keys.HOME, Keys.PAGE_UP, Keys.ARROW_RIGHT, Keys.END][version])
            scores.append(int(chrome.execute_script("return document.activeElement.value")))
        assert scores[:2] == [100, 0]
        given.append(scores)
        until(
            lambda it: press(it, "[") or it.execute_script("return trial.player.part !== null")
        )  # not at the very end
        press(chrome, Keys.ENTER)
    text = until(lambda it: it.find_element(By.ID, "results").get_attribute("value"))
    found = json.loads(text)
    assert (found["title"], found["listener"]) == ("Which is closer?", "Ada <b>")
    assert [[c["score"] for c in trial["conditions"]] for trial in found["trials"]] == given
    assert all(c["plays"] >= 1 for trial in found["trials"] for c in trial["conditions"])
    (tmp_path / "ada.json").write_text(text)
    results = read_results([tmp_path / "ada.json"])
    assert sorted(results["system"].unique()) == sorted(names)
    assert len(results) == 2 * len(names)
    assert complaints(chrome) == []
    assert requests(chrome) == []


def test_listeners_get_orders_of_their_own_that_stay(chrome, page):
    opened(chrome, page)
    script = "return Array.from({length: 40}, (_, i) => shuffled(5, `0/listener ${i}/x`).join())"
    orders = chrome.execute_script(script)
    assert all(sorted(order.split(",")) == list("01234") for order in orders)
    assert len(set(orders)) > 25
    assert all(sum(order.startswith(str(i)) for order in orders) >= 2 for i in range(5))
    assert chrome.execute_script(script) == orders


def test_a_phone_shows_all_of_it(chrome, page):
    opened(chrome, page)
    resize(chrome, 360, 740, phone=True)
    chrome.find_element(By.ID, "listener").send_keys("phone", Keys.ENTER)
    assert chrome.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert len(chrome.find_elements(By.CSS_SELECTOR, "#rows input")) == 5


def press(chrome, key):
    chrome.switch_to.active_element.send_keys(key)
