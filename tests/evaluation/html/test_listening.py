"""The listening test: blind, complete, operable by keyboard, and its results read back as answered."""

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pytest
import soundfile
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from codec.evaluation.baselines.anchors import LowPass
from codec.evaluation.html.base import MOST_CONDITIONS, PageError, check_listening_test
from codec.evaluation.html.listening import anchor, write_listening_test
from codec.evaluation.html.ratings import ANCHOR, REFERENCE, read_ratings
from tests.helpers.browser import evaluate, open_page, problems, resize, wait_until


@pytest.fixture(scope="module")
def path(results, tmp_path_factory):
    return write_listening_test(tmp_path_factory.mktemp("test") / "test.html", results, "Which is closer?", clips=2)


def data_of(path):
    """The data of the page, and its decoded key: (clip, systems in their order) for each trial."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    data = json.loads(found[1])
    return data, json.loads(base64.b64decode(data["key"]))


def renamed(result, name, **facts):
    report = dataclasses.replace(result.report, facts=result.report.facts | facts)
    return dataclasses.replace(result, name=name, report=report)


def test_the_anchor_is_a_low_pass_of_3_5_khz():
    wave = np.random.default_rng(0).normal(0, 3000, 16_000).astype(np.int16)
    expected = LowPass(3500).reconstruct(torch.from_numpy(wave / 32768)[None, None], 16_000)[0, 0]
    np.testing.assert_allclose(anchor((wave, 16_000))[0] / 32768, expected, atol=1e-4)
    with pytest.raises(PageError, match="8000 Hz"):
        anchor((wave, 7000))


def test_it_hides_the_names_and_has_each_systems_own_audio(path, results):
    source = path.read_text()
    assert not [name for name in [*(result.name for result in results), ANCHOR, "bits"] if name in source]
    data, key = data_of(path)
    by_name = {result.name: result for result in results}
    for (clip, systems, _), trial in zip(key, data["trials"], strict=True):
        assert sorted(systems) == sorted([REFERENCE, ANCHOR, *by_name])
        assert systems[trial["reference"]] == REFERENCE
        for system, sound in zip(systems, trial["sounds"], strict=True):
            if system != ANCHOR:
                result = by_name.get(system, results[0])
                file = result.report.audio[clip]["reference" if system == REFERENCE else "decoded"]
                wav, _ = soundfile.read(io.BytesIO(base64.b64decode(sound.partition(",")[2])))
                np.testing.assert_array_equal(wav, soundfile.read(result.folder / file)[0])


def test_the_seed_decides_about_orders(path, results, tmp_path):
    again = write_listening_test(tmp_path / "a.html", results, "Which is closer?", clips=2)
    assert again.read_bytes() == path.read_bytes()
    other = write_listening_test(tmp_path / "b.html", results, "Which is closer?", clips=2, seed=1)
    assert data_of(other)[1] != data_of(path)[1]


def test_baselines_replace_reference_and_anchor_and_the_rest_is_limited(results, tmp_path):
    same, low = renamed(results[0], "identity"), renamed(results[1], "low_pass", cutoff_hz=3500.0)
    mid = renamed(results[1], "low_pass", cutoff_hz=7000.0)
    many = [renamed(results[2], f"system {i}") for i in range(MOST_CONDITIONS - 2)]
    for systems, conditions in (
        ([same, mid], ["low_pass", REFERENCE, ANCHOR]),
        ([same, low, *many], [REFERENCE, "low_pass", *(result.name for result in many)]),
    ):
        (_, systems, _), *_ = data_of(write_listening_test(tmp_path / "a.html", systems, "Baselines", clips=1))[1]
        assert sorted(systems) == sorted(conditions)
    for systems, options, word in (
        ([same, low, *many, renamed(low, "more")], {}, "1 to 11 systems, not 12"),
        ([same], {}, "1 to 10 systems, not 0"),
        ([results[0], results[0]], {}, "unique names"),
        (results, {"limit_mb": 0.03}, "finds room"),
    ):
        with pytest.raises(PageError, match=word):
            write_listening_test(tmp_path / "b.html", systems, "Refused", **options)
    check_listening_test(["identity", "low_pass", *(result.name for result in many)])
    with pytest.raises(PageError, match="1 to 10"):
        check_listening_test(["identity"])
    assert write_listening_test(tmp_path / "b.html", results, "Smaller", limit_mb=0.5).stat().st_size < 0.5e6


def press(chrome, key):
    chrome.switch_to.active_element.send_keys(key)


@pytest.mark.browser
def test_a_listener_answers_by_keyboard_from_start_to_results(chrome, path, results, tmp_path):
    open_page(chrome, path)
    chrome.find_element(By.ID, "listener").send_keys("Ada <b>", Keys.ENTER)
    names = [REFERENCE, ANCHOR, *(result.name for result in results)]
    given = []
    for trial in range(2):
        assert chrome.find_element(By.ID, "progress").text == f"Clip {trial + 1} of 2"
        body = chrome.find_element(By.TAG_NAME, "body").get_attribute("outerHTML")
        body = re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
        assert not [name for name in names[1:] if name in body]
        press(chrome, Keys.ENTER)
        assert "Not rated yet: 1, 2, 3, 4, 5." in chrome.find_element(By.ID, "trouble").text
        press(chrome, " ")
        wait_until(chrome, "trial.player.position > 0.02")
        scores = []
        for version, key in enumerate([Keys.END, Keys.HOME, Keys.PAGE_UP, Keys.ARROW_RIGHT, Keys.END], start=1):
            press(chrome, str(version))
            assert evaluate(chrome, "trial.player.active") == version
            press(chrome, key)
            scores.append(int(evaluate(chrome, "document.activeElement.value")))
        assert scores[:2] == [100, 0]
        given.append(scores)
        wait = WebDriverWait(chrome, 10, poll_frequency=0.05)  # a loop cannot begin at the very end
        wait.until(lambda it: press(it, "[") or evaluate(it, "trial.player.part !== null"))
        press(chrome, Keys.ENTER)
    text = wait.until(lambda it: it.find_element(By.ID, "results").get_attribute("value"))
    found = json.loads(text)
    assert (found["title"], found["listener"]) == ("Which is closer?", "Ada <b>")
    assert [[c["score"] for c in trial["conditions"]] for trial in found["trials"]] == given
    assert all(c["plays"] >= 1 for trial in found["trials"] for c in trial["conditions"])
    (tmp_path / "ada.json").write_text(text)
    ratings = read_ratings([tmp_path / "ada.json"])
    assert sorted(ratings["system"].unique()) == sorted(names)
    assert len(ratings) == 2 * len(names)
    assert problems(chrome) == []


@pytest.mark.browser
def test_orders_differ_between_listeners_and_are_reproducible_and_a_phone_shows_all_sliders(chrome, path):
    open_page(chrome, path)
    script = "Array.from({length: 40}, (_, i) => shuffled(5, `0/listener ${i}/x`).join())"
    orders = evaluate(chrome, script)
    assert all(sorted(order.split(",")) == list("01234") for order in orders)
    assert len(set(orders)) > 25
    assert evaluate(chrome, script) == orders
    resize(chrome, 360, 740, phone=True)
    chrome.find_element(By.ID, "listener").send_keys("phone", Keys.ENTER)
    assert evaluate(chrome, "document.documentElement.scrollWidth <= innerWidth")
    assert len(chrome.find_elements(By.CSS_SELECTOR, "#rows input")) == 5
