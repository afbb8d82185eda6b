"""Runs compared: main effects of known grids, and the command with what it writes."""

import csv
import itertools
import json
import math
import shlex

import numpy as np
import pytest
from scipy import stats

from codec.evaluation import evaluate as evaluation
from codec.__main__ import main
from codec.evaluation.runs.main_effects import CompareError, grid, student
from codec.evaluation.metrics.workers import score_clips
from codec.evaluation.metrics.table import METRICS
from codec.evaluation.runs.run_folder import discover, names
from tests.helpers.run_folders import ERROR, report, write_run
from tests.helpers.programs import call
from tests.helpers.training import SHORT, SMALL_CODEC

DISC = {"none": 0.0, "msd": 0.5, "mfd": -0.25}
LR = {"0.1": 0.0, "0.2": 2.0}
SEED = {0: 1.0, 1: 3.0}


def write_grid(folder, noise=lambda disc, lr, seed: 0.0, left_out=(), **about):
    """Runs whose metric is the sum of what each of their settings adds, and noise."""
    for n, (disc, lr, seed) in enumerate(itertools.product(["msd", "none", "mfd"], LR, SEED)):
        score = DISC[disc] + LR[lr] + SEED[seed] + noise(disc, lr, seed)
        overrides = [f"disc={disc}", f"lr={lr}", f"seed={seed}"]
        failed = (disc, lr, seed) in left_out
        write_run(
            folder / str(n),
            overrides,
            {"disc": disc},
            {"lr": float(lr), "seed": seed, "disc": {"x": disc}},
            scores=None if failed else {"stoi": score, "mel_distance": -score},
            log=f"{ERROR}no memory\n" if failed else "",
            **about,
        )
    return discover([folder])


def effects(result, metric="stoi"):
    return {(e.factor, e.level): e for e in result.effects if e.metric == metric}


def test_effects_of_an_additive_grid_are_exact(tmp_path):
    runs = write_grid(tmp_path)
    result = grid(runs, names(runs))
    assert result.factors == {"disc": ["none", "msd", "mfd"], "lr": ["0.1", "0.2"]}
    for metric, sign in (("stoi", 1), ("mel_distance", -1)):
        found = effects(result, metric)
        assert set(found) == {("disc", "msd"), ("disc", "mfd"), ("lr", "0.2")}
        for (factor, level), effect in found.items():
            wanted = sign * (DISC if factor == "disc" else LR)[level]
            assert effect.against == result.factors[factor][0]
            assert effect.difference == pytest.approx((wanted, wanted, wanted, 4 if factor == "disc" else 6))
        assert found["lr", "0.2"].mean == pytest.approx(sign * (2 + 2 + np.mean(list(DISC.values()))))
    table = result.runs
    assert list(table) == ["name", "state", "reason", "disc", "lr", "command", "stoi", "mel_distance"]
    assert table["stoi"].tolist() == pytest.approx([run.report.clips["stoi"].mean() for run in runs])


def test_intervals_are_students_over_pairs(tmp_path):
    generator = np.random.default_rng(0)
    noise = {key: round(generator.normal(), 3) for key in itertools.product(DISC, LR, SEED)}
    runs = write_grid(tmp_path, lambda *key: noise[key])
    found = effects(grid(runs, names(runs)))["disc", "msd"].difference
    pairs = [DISC["msd"] + noise["msd", lr, seed] - noise["none", lr, seed] for lr in LR for seed in SEED]
    low, high = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
    assert found == pytest.approx((np.mean(pairs), low, high, 4), rel=1e-5)


def test_few_values_have_wide_intervals_and_one_has_none():
    assert student([]) == pytest.approx((math.nan, math.nan, math.nan, 0), nan_ok=True)
    assert student([2.0]) == pytest.approx((2.0, math.nan, math.nan, 1), nan_ok=True)
    two = student([1.0, 2.0])
    assert two == pytest.approx((1.5, 1.5 - 12.706 * 0.5, 1.5 + 12.706 * 0.5, 2), rel=1e-4)  # tables of t
    assert two.high - two.low > 3 * np.subtract(*student([1.0, 2.0, 1.5])[2:0:-1])


def test_a_run_that_failed_takes_its_own_pairs_away(tmp_path):
    left_out = [("msd", "0.2", 0), ("none", "0.1", 1)]
    runs = write_grid(tmp_path, left_out=left_out)
    result = grid(runs, names(runs))
    found = effects(result)
    assert found["disc", "msd"].difference == pytest.approx((0.5, 0.5, 0.5, 2))
    assert found["disc", "mfd"].difference == pytest.approx((-0.25, -0.25, -0.25, 3))
    assert found["lr", "0.2"].difference == pytest.approx((2, 2, 2, 4))
    failed = result.runs[result.runs["state"] == "failed"]
    assert set(failed["name"]) == {f"disc={d} lr={lr} seed={s}" for d, lr, s in left_out}
    assert set(failed["reason"]) == {"no memory"}
    assert failed[["stoi", "mel_distance"]].isna().all(axis=None)


def test_a_level_without_scores_is_not_what_others_are_compared_with(tmp_path):
    runs = write_grid(tmp_path, left_out=list(itertools.product(["none"], LR, SEED)))
    result = grid(runs, names(runs))
    assert result.factors["disc"] == ["msd", "mfd", "none"]
    assert effects(result)["disc", "mfd"].difference.mean == pytest.approx(-0.75)
    assert effects(result)["disc", "none"].difference.n == 0


def test_seeds_pair_runs_and_are_no_factor(tmp_path):
    """Without a run of the same seed there is no pair, however many there are of other seeds."""
    for n, (disc, seed) in enumerate([("none", 0), ("none", 1), ("msd", 1), ("msd", 2)]):
        overrides = [f"disc={disc}", f"seed={seed}"]
        write_run(tmp_path / str(n), overrides, {"disc": disc}, {"seed": seed}, {"stoi": 10.0**seed + DISC[disc]})
    runs = discover([tmp_path])
    result = grid(runs, names(runs))
    assert list(result.factors) == ["disc"]
    difference = effects(result)["disc", "msd"].difference
    assert difference == pytest.approx((0.5, math.nan, math.nan, 1), nan_ok=True)


def test_runs_that_agree_in_everything_count_as_one(tmp_path):
    for n, (disc, score) in enumerate([("none", 1.0), ("none", 3.0), ("msd", 5.0)]):
        write_run(tmp_path / str(n), [f"disc={disc}"], {"disc": disc}, scores={"stoi": score})
    runs = discover([tmp_path])
    difference = effects(grid(runs, names(runs)))["disc", "msd"].difference
    assert (difference.mean, difference.n) == (3.0, 1)


def test_other_clips_are_refused(tmp_path):
    for n, clips in enumerate([("a", "b"), ("a", "b"), ("a", "c")]):
        write_run(tmp_path / str(n), [f"seed={n}"], {}, {"seed": n}, {"stoi": 0.5}, clips=clips)
    runs = discover([tmp_path])
    with pytest.raises(
        CompareError, match=r"^seed=0 and seed=2 were scored on different clips \(2 and 2, 1 in common\)"
    ):
        grid(runs, names(runs))


def test_other_rates_are_refused(tmp_path):
    for n, rate in enumerate((16_000, 24_000)):
        write_run(tmp_path / str(n), [f"seed={n}"], {}, {"seed": n}, {"stoi": 0.5}, sample_rate=rate)
    runs = discover([tmp_path])
    with pytest.raises(CompareError, match="seed=0 was scored at 16000 Hz and seed=1 at 24000"):
        grid(runs, names(runs))


def test_a_pair_is_compared_on_the_clips_that_both_have(tmp_path):
    """The clip that is hard for both must not count for one of them alone."""
    scores = {"none": [0.9, 0.9, 0.1], "msd": [0.8, 0.8, math.nan]}
    for n, disc in enumerate(scores):
        folder = write_run(tmp_path / str(n), [f"disc={disc}"], {"disc": disc})
        whole = report({"stoi": 0.0}, clips=("a", "b", "c"))
        whole.clips["stoi"] = scores[disc]
        whole.write(folder)
    runs = discover([tmp_path])
    assert effects(grid(runs, names(runs)))["disc", "msd"].difference.mean == pytest.approx(-0.1)


def test_reports_of_an_earlier_evaluation_are_left_out(tmp_path, pages):
    run = write_run(tmp_path / "run", scores={"stoi": 0.5})
    for system in ("old", "new"):
        report({"stoi": 0.5}, run=str(run), system=system).write(tmp_path / "scores", system)
    (tmp_path / "scores" / "timing.json").write_text('{"new": {"rtf_encode": 0.5}}')
    run_compare(run, "--scores", tmp_path / "scores")
    (entry,) = pages[-1][0]
    assert (entry.report.facts["system"], entry.timing) == ("new", {"rtf_encode": 0.5})


@pytest.fixture
def pages(monkeypatch):
    """Stands for codec/evaluation/html/report.py: what it is called with."""
    seen = []

    def write_page(path, entries, title, grid=None, limit_mb=30.0):
        seen.append((entries, title, grid))
        path.write_text(title)
        return path

    import codec.evaluation.html.write  # noqa: F401, which keeps the real one for training's own report

    monkeypatch.setattr("codec.evaluation.html.report.write_page", write_page)
    return seen


def run_compare(*arguments):
    main(["compare", *map(str, arguments)])


def test_the_command_writes_the_same_bytes_again(tmp_path, pages, capsys):
    write_grid(tmp_path / "runs", left_out=[("mfd", "0.2", 0)])
    for out in ("a", "b"):
        run_compare(tmp_path / "runs", "--out", tmp_path / out, "--title", "Which discriminator?")
    for name in ("compare.csv", "compare.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    printed = capsys.readouterr().out
    for words in (
        "failed    disc=mfd lr=0.2 seed=0",
        "no memory",
        "python train.py disc=mfd lr=0.2 seed=0",
        "main effects",
    ):
        assert words in printed
    assert "[+0.500, +0.500]" in printed

    with open(tmp_path / "a" / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        told = dict(o.split("=") for o in shlex.split(row["command"])[2:])
        assert told == {key: row[key] for key in ("disc", "lr", "seed")}
        assert (row["stoi"] == "") == (row["state"] == "failed")
    content = json.loads((tmp_path / "a" / "compare.json").read_text())
    assert [run["name"] for run in content["runs"]] == [row["name"] for row in rows]
    assert content["factors"]["disc"] == ["none", "msd", "mfd"]
    assert content["effects"][0]["difference"].keys() == {"mean", "low", "high", "n"}

    entries, title, about = pages[0]
    assert title == "Which discriminator?"
    assert len(about.runs) == 12
    assert [e.name for e in entries] == [row["name"] for row in rows if row["state"] == "finished"]
    first = entries[0]
    assert (first.family, first.folder, first.command) == (first.name, tmp_path / "runs" / "0", rows[0]["command"])
    assert first.curves["train/mel"].tolist() == [1.5]


def test_metrics_can_be_chosen(tmp_path, pages, capsys):
    write_grid(tmp_path)
    run_compare(tmp_path, "--metrics", "stoi")
    content = json.loads((tmp_path / "compare" / "compare.json").read_text())
    assert {effect["metric"] for effect in content["effects"]} == {"stoi"}
    assert "Mel distance" not in capsys.readouterr().out
    fails("no report has the metric pesq; they have stoi, mel_distance", tmp_path, "--metrics", "pesq")


def fails(words, *arguments):
    with pytest.raises(SystemExit) as error:
        run_compare(*arguments)
    assert str(error.value.code).startswith("error: ")
    assert "\n" not in str(error.value.code)
    assert words in str(error.value.code)


def test_scores_of_an_evaluation(tmp_path, pages, monkeypatch):
    """They take the place of training's; what is no run of ours is a baseline; more bitrates are of one family."""
    write_grid(tmp_path / "runs", clips=("x", "y"))
    scores = tmp_path / "scores"
    monkeypatch.chdir(tmp_path)
    fails("there are no reports in nowhere", "runs", "--scores", "nowhere")
    for n in range(12):
        for n_q, extra in ((8, 5.0), (4, 4.0)):
            report({"stoi": n % 4 + extra}, run=f"../runs/{n}", n_q=n_q).write(scores, f"run{n}_nq{n_q}")
    report({"stoi": 9.0}).write(scores, "opus_6")
    run_compare("runs", "--scores", "scores", "--out", "scores")
    run_compare("runs/0", "runs/1", "--scores", "scores", "--out", "scores")  # over its own compare.json
    entries, _, about = pages[0]
    assert about.runs["stoi"].tolist() == [n % 4 + 5.0 for n in range(12)]
    assert [e.name for e in entries[:2]] == [about.runs["name"][0], f"{about.runs['name'][0]} n_q=4"]
    assert {e.family for e in entries[:2]} == {about.runs["name"][0]}
    assert (entries[-1].name, entries[-1].baseline, entries[-1].command) == ("opus_6", True, "")
    assert entries[-1].family == "opus"
    assert {str(e.folder) for e in entries} == {"scores"}
    assert [e.curves is None for e in entries[:2]] == [False, True]  # drawn once for a family
    monkeypatch.chdir(scores)
    run_compare(tmp_path / "runs", "--scores", scores, "--out", "x")  # wherever it is called
    assert len(pages[-1][0]) == len(entries)

    report({"stoi": 0.0}, run="../runs/3", n_q=4).write(scores, "again")
    fails("scores has two reports of", tmp_path / "runs", "--scores", scores)


def test_baselines_on_other_clips_are_refused(tmp_path, pages):
    run = write_run(tmp_path / "run", scores={"stoi": 0.5})
    report({"stoi": 0.5}, run=str(run)).write(tmp_path / "scores", "run")
    report({"stoi": 0.5}, clips=("a", "z")).write(tmp_path / "scores", "opus")
    fails("run and opus were scored on different clips", run, "--scores", tmp_path / "scores")


def test_when_nothing_was_scored_the_states_are_written_all_the_same(tmp_path, pages, capsys):
    write_run(tmp_path / "0", ["lr=1"], {}, {"lr": 1}, log=f"{ERROR}no memory\n")
    write_run(tmp_path / "1", ["lr=2"], {}, {"lr": 2}, losses=[{"step": 4, "train/mel": "nan"}])
    fails("no run has scores to compare", tmp_path)
    assert "no memory" in capsys.readouterr().out
    with open(tmp_path / "compare" / "compare.csv", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["failed", "diverged"]
    assert not pages
    fails("there is no run of train.py in", tmp_path / "compare")


@pytest.mark.usefixtures("_costs_nothing")
def test_a_real_sweep(speech_folder, tmp_path, monkeypatch, pages, capsys):
    """Two runs that train and one that cannot: all listed, the last with its reason and what to call again."""
    one = {"mel_distance": METRICS["mel_distance"]}  # in this process: others take seconds to begin
    monkeypatch.setattr(evaluation, "score_clips", lambda pairs, rate, *_: score_clips(pairs, rate, one, 0))
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "logger=csv"]
    short = [option for option in SHORT if not option.startswith("segment")]
    sweep = ["-m", "segment=0.52,0.01,0.6", f"hydra.sweep.dir={tmp_path}", "disc=none", "quantizer.codebook_size=16"]
    assert call("train.py", *sweep, *data, *short, *SMALL_CODEC) == 1
    run_compare(tmp_path)
    runs = discover([tmp_path])
    assert names(runs) == ["segment=0.52", "segment=0.01", "segment=0.6"]
    assert [run.state for run in runs] == ["finished", "failed", "finished"]
    assert runs[1].reason.startswith("segment: ")
    assert runs[1].reason in capsys.readouterr().out
    assert {"segment=0.01", "disc=none", "max_steps=2", "logger=csv"} < set(shlex.split(runs[1].command))
    assert runs[0].curves()["step"].tolist() == [0, 1]
    _, _, result = pages[0]
    assert result.factors == {"segment": ["0.52", "0.6", "0.01"]}
    assert effects(result, "mel_distance")["segment", "0.6"].difference.n == 1
