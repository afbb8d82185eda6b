"""Ratings of a listening test: validated, screened, and averaged over listeners."""

import json

import numpy as np
import pandas
import pytest

from codec.__main__ import main
from codec.evaluation.html.ratings import FORMAT, REFERENCE, read_ratings, screen_listeners, summarise
from codec.utils.errors import InputError


def rated(listener="a", test="t", scores=({REFERENCE: 100, "b": 60}, {REFERENCE: 95, "b": 40}), speakers=None):
    """The content of a result file; ``scores`` by trial and system. Without ``speakers``, as older pages wrote it."""
    trials = [
        {"clip": f"clip {i}", "conditions": [{"system": s, "score": v, "plays": 1} for s, v in trial.items()]}
        for i, trial in enumerate(scores)
    ]
    for trial, speaker in zip(trials, speakers or (), strict=False):
        trial["speaker"] = speaker
    return {"format": FORMAT, "test": test, "title": "T", "seed": 0, "listener": listener, "trials": trials}


def written(folder, *results):
    paths = [folder / f"{i}.json" for i in range(len(results))]
    for path, content in zip(paths, results, strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return paths


TWICE = rated()
TWICE["trials"][0]["conditions"] *= 2


@pytest.mark.parametrize(
    ("word", "results"),
    [
        *(("0.json", [content]) for content in ("", "{}", rated() | {"format": "x"}, rated() | {"listener": 1})),
        *(("score", [rated(scores=[{"a": score}])]) for score in (101, None, "90", True)),
        ("twice", [TWICE]),
        ("no rating", [rated(scores=[])]),
        ("second result of listener a", [rated(), rated()]),
        ("different tests", [rated("a"), rated("b", test="u")]),
        ("no result", []),
    ],
)
def test_unusable_results_are_refused(tmp_path, word, results):
    with pytest.raises(InputError, match=word):
        read_ratings(written(tmp_path, *results))
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        read_ratings([tmp_path / "none.json"])


@pytest.mark.parametrize(("missed", "stays"), [(0, True), (1, True), (2, False)])
def test_listeners_who_miss_the_hidden_reference_are_excluded(tmp_path, missed, stays):
    """One of eight trials is 12.5 %, two are 25 %; 90 itself is no miss."""
    trials = [{REFERENCE: 89 if i < missed else 90, "b": 50} for i in range(8)]
    good = rated("good", scores=[{REFERENCE: 100, "b": 1}] * 8)
    ratings, excluded = screen_listeners(read_ratings(written(tmp_path, good, rated("x", scores=trials))))
    assert excluded == ([] if stays else ["x"])
    assert set(ratings["listener"]) == {"good", "x"} - set(excluded)


def test_the_command_screens_and_summarises(tmp_path, capsys):
    good = [rated(name, scores=[{REFERENCE: 100, "b": 40}, {REFERENCE: 98, "b": 60}]) for name in ("anna", "ben")]
    unreliable = rated("carl", scores=[{REFERENCE: 20, "b": 100}] * 2)
    main(["ratings", *map(str, written(tmp_path, *good, unreliable)), "--against", "b"])
    lines = capsys.readouterr().out.splitlines()
    assert "carl" in lines[0]
    row = next(line.split() for line in lines if line.split()[:1] == [REFERENCE])
    assert [row[1], *row[4:7]] == ["99.0", "2", "listeners,", "clips"]
    with pytest.raises(SystemExit, match="no listener is left"):
        main(["ratings", *map(str, written(tmp_path, unreliable))])


def test_a_summary_counts_listeners_and_pairs_them():
    random = np.random.default_rng(0)
    rows = []
    for listener in range(12):
        offset = random.normal(0, 10)
        for clip in range(6):
            scores = {s: v + offset + random.normal() for s, v in (("a", 60), ("b", 58))}
            rows += [[f"l{listener}", f"c{clip}", None, system, score] for system, score in scores.items()]
    ratings = pandas.DataFrame(rows, columns=["listener", "clip", "speaker", "system", "score"])
    table = summarise(ratings, against="b").set_index("system")
    assert list(table["n"]) == [12, 12]
    assert table["high"]["a"] - table["low"]["a"] > 4  # listeners differ
    assert table["low"]["a"] < table["mean"]["b"]  # so the means do not separate the systems
    assert 1 < table["difference_low"]["a"] < 2 < table["difference_high"]["a"] < 3  # the pairs do
    assert set(summarise(ratings[ratings["listener"] == "l0"])["over"]) == {"clips"}
    assert set(table["over"]) == {"listeners, clips"}
    with pytest.raises(InputError, match="no system c"):
        summarise(ratings, against="c")


def test_listeners_who_agree_are_certain_of_the_clips_they_heard_only(tmp_path):
    """Eight listeners who all hear a gain in one voice, and none in the others."""
    gains = [12, 12, 12, 0, 0, 0, 0, 0]
    scores = [{REFERENCE: 100, "a": 50 + gain, "b": 50} for gain in gains]
    files = [rated(f"l{n}", scores=scores, speakers=["s0"] * 3 + [f"s{i}" for i in range(1, 6)]) for n in range(8)]
    ratings = read_ratings(written(tmp_path, *files))
    row = summarise(ratings, against="b").set_index("system").loc["a"]
    assert (row["difference"], row["over"]) == (pytest.approx(4.5), "listeners, speakers")
    assert row["difference_low"] < 0
