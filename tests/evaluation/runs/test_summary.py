"""`codec compare`: the files that it writes, from reports of training or of eval.py."""

import csv
import json
import shlex

import pytest

from codec.__main__ import main
from codec.evaluation.runs.run_folder import find_runs, run_names
from tests.helpers.programs import call
from tests.helpers.run_folders import ERROR, report, write_grid, write_run
from tests.helpers.training import SHORT, SMALL_CODEC


@pytest.fixture
def pages(monkeypatch):
    """The arguments of each page that would have been written."""
    seen = []

    def write_page(path, results, title, grid=None, limit_mb=30.0):
        seen.append((results, title, grid))
        path.write_text(title)
        return path

    monkeypatch.setattr("codec.evaluation.html.report.write_page", write_page)
    return seen


def run_compare(*arguments):
    main(["compare", *map(str, arguments)])


def refuses(words, *arguments):
    with pytest.raises(SystemExit, match=f"^error: .*{words}") as error:
        run_compare(*arguments)
    assert "\n" not in str(error.value.code)


def test_the_files_are_reproducible_and_complete(tmp_path, pages, capsys):
    write_grid(tmp_path / "runs", failed=[("mfd", "0.2", 0)])
    for out in ("a", "b"):
        run_compare(tmp_path / "runs", "--out", tmp_path / out, "--title", "Which discriminator?")
    for name in ("compare.csv", "compare.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    printed = capsys.readouterr().out
    for words in ("failed", "no memory", "python train.py disc=mfd lr=0.2 seed=0", "main effects", "[+0.500, +0.500]"):
        assert words in printed
    with open(tmp_path / "a" / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        overrides = dict(o.split("=") for o in shlex.split(row["command"])[2:])
        assert overrides == {key: row[key] for key in ("disc", "lr", "seed")}
        assert (row["stoi"] == "") == (row["state"] == "failed")
    content = json.loads((tmp_path / "a" / "compare.json").read_text())
    assert [run["name"] for run in content["runs"]] == [row["name"] for row in rows]
    assert content["factors"]["disc"] == ["none", "msd", "mfd"]
    assert content["effects"][0]["difference"].keys() == {"mean", "low", "high", "n", "groups"}
    results, title, grid = pages[0]
    assert (title, len(grid.runs)) == ("Which discriminator?", 12)
    assert [one.name for one in results] == [row["name"] for row in rows if row["state"] == "finished"]
    assert (results[0].folder, results[0].command) == (tmp_path / "runs" / "0", rows[0]["command"])
    assert results[0].curves["train/mel"].tolist() == [1.5]
    run_compare(tmp_path / "runs", "--metrics", "stoi", "--out", tmp_path / "a")
    assert {effect.metric for effect in pages[-1][2].effects} == {"stoi"}
    assert "Mel distance" not in capsys.readouterr().out
    refuses("no report has the metric pesq", tmp_path / "runs", "--metrics", "pesq")


def test_reports_of_an_evaluation_replace_those_of_training(tmp_path, pages, monkeypatch):
    """Reports without a run are baselines; several numbers of codebooks are a family."""
    write_grid(tmp_path / "runs", clips=("x", "y"))
    scores = tmp_path / "scores"
    monkeypatch.chdir(tmp_path)
    refuses("no reports in nowhere", "runs", "--scores", "nowhere")
    for n in range(12):
        for n_q, extra in ((8, 5.0), (4, 4.0)):
            report({"stoi": n % 4 + extra}, run=f"../runs/{n}", n_q=n_q).write(scores, f"run{n}_nq{n_q}")
    report({"stoi": 9.0}).write(scores, "opus_6")
    for runs in (["runs"], ["runs/0", "runs/1"]):  # the second time over its own compare.json
        run_compare(*runs, "--scores", "scores", "--out", "scores")
    results, _, grid = pages[0]
    assert grid.runs["stoi"].tolist() == [n % 4 + 5.0 for n in range(12)]
    name = grid.runs["name"][0]
    assert [(one.name, one.family, one.curves is None) for one in results[:2]] == [
        (name, name, False),
        (f"{name} n_q=4", name, True),
    ]
    assert (results[-1].name, results[-1].family, results[-1].baseline) == ("opus_6", "opus", True)
    monkeypatch.chdir(scores)
    run_compare(tmp_path / "runs", "--scores", scores, "--out", "x")  # from any folder
    assert len(pages[-1][0]) == len(results)
    report({"stoi": 0.0}, run="../runs/3", n_q=4).write(scores, "again")
    refuses("scores has two reports of", tmp_path / "runs", "--scores", scores)


def test_reports_of_an_earlier_evaluation_are_left_out(tmp_path, pages):
    run, scores = write_run(tmp_path / "run", scores={"stoi": 0.5}), tmp_path / "scores"
    for system in ("old", "new"):
        report({"stoi": 0.5}, run=str(run), system=system).write(scores, system)
    (scores / "timing.json").write_text('{"new": {"rtf_encode": 0.5}}')
    run_compare(run, "--scores", scores)
    (result,) = pages[-1][0]
    assert (result.report.facts["system"], result.timing) == ("new", {"rtf_encode": 0.5})
    report({"stoi": 0.5}, clips=("a", "z"), system="opus").write(scores, "opus")
    (scores / "timing.json").unlink()
    (scores / "old.json").unlink()
    refuses("run and opus were scored on different clips", run, "--scores", scores)


def test_without_scores_the_states_are_written(tmp_path, pages, capsys):
    write_run(tmp_path / "0", ["lr=1"], {}, {"lr": 1}, log=f"{ERROR}no memory\n")
    write_run(tmp_path / "1", ["lr=2"], {}, {"lr": 2}, losses=[{"step": 4, "train/mel": "nan"}])
    refuses("no run has scores to compare", tmp_path)
    assert "no memory" in capsys.readouterr().out
    with open(tmp_path / "compare" / "compare.csv", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["failed", "diverged"]
    assert not pages
    refuses("there is no run of train.py in", tmp_path / "compare")


@pytest.mark.usefixtures("_costs_nothing", "_score_here")
def test_a_real_sweep(speech_folder, tmp_path, pages, capsys):
    """A run that trains, and one that fails, which is listed with its reason and its command."""
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "logger=csv"]
    short = [option for option in SHORT if not option.startswith("segment")]
    sweep = ["-m", "segment=0.52,0.01", f"hydra.sweep.dir={tmp_path}", "disc=none", "quantizer.codebook_size=16"]
    assert call("train.py", *sweep, *data, *short, *SMALL_CODEC) == 1
    pages.clear()  # of training
    run_compare(tmp_path)
    runs = find_runs([tmp_path])
    assert run_names(runs) == ["segment=0.52", "segment=0.01"]
    assert [run.status.state for run in runs] == ["finished", "failed"]
    assert runs[1].status.reason.startswith("segment: ")
    assert runs[1].status.reason in capsys.readouterr().out
    assert {"segment=0.01", "disc=none", "max_steps=2", "logger=csv"} < set(shlex.split(runs[1].command))
    assert runs[0].curves()["step"].tolist() == [0, 1]
    assert pages[0][2].factors == {"segment": ["0.52", "0.01"]}
