"""Run folders: found, named by what differs, with their final state, curves and command."""

import math
import shlex

import pytest

from codec.evaluation.runs.factors import levels
from codec.evaluation.runs.run_folder import Run, RunError, find_runs, run_names
from tests.helpers.run_folders import ERROR, INFO, write_csv, write_hydra, write_run

GOOD = {"stoi": 0.5}


def test_runs_are_found_once_in_natural_order(tmp_path):
    top = tmp_path / "multirun"
    for number in (1, 2, 10):
        write_run(top / str(number))
    write_run(tmp_path / "other" / "deep" / "down")
    wandb = top / "10" / "wandb"
    (wandb / "offline-run-20260102_030405-abc" / "files").mkdir(parents=True)
    write_run(top / "1" / "inside")  # runs inside of runs are not searched for
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to(top / "2")
    (tmp_path / "links" / "up").symlink_to(tmp_path / "links")

    def found(*paths):
        return [str(run.folder.resolve().relative_to(tmp_path)) for run in find_runs(paths)]

    here = ["multirun/1", "multirun/2", "multirun/10"]
    assert found(top / "10", top / "2", top, top / "2") == here
    assert found(tmp_path) == [*here, "other/deep/down"]
    assert found(wandb) == found(wandb / "offline-run-20260102_030405-abc") == ["multirun/10"]
    assert found(tmp_path / "links") == ["multirun/2"]
    (tmp_path / "eval" / ".hydra").mkdir(parents=True)
    (tmp_path / "eval" / ".hydra" / "hydra.yaml").write_text("hydra: {job: {name: eval}}")  # of another program
    for folder, word in (("eval", "no run of train.py in .*eval"), ("nowhere", "nowhere is no folder")):
        with pytest.raises(RunError, match=word):
            found(top, tmp_path / folder)


def test_the_command_repeats_the_run(tmp_path):
    overrides = ["disc=msd+mfd", "strides=[2, 4]", "name='a b'", "~callbacks.progress", "dataset.path=/a dir/$x"]
    other, own = "ckpt_path=elsewhere/last.ckpt", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    run = Run(write_run(tmp_path / "run", [*overrides, other, own, "ckpt_path=last"]))
    assert shlex.split(run.command) == ["python", "train.py", *overrides, other]
    for file in (run.folder / ".hydra").iterdir():
        file.unlink()
    assert find_runs([tmp_path]) == [run]
    assert shlex.split(run.command)[2:] == [f"--config-path={run.folder}", "--config-name=config", "run_dir=run-again"]


TRACE = """Traceback (most recent call last):
  File "train.py", line 1, in main
    train(cfg)
    ~~~~~^^^^^
KeyError: 'x'
"""


@pytest.mark.parametrize(
    ("state", "reason", "about"),
    [
        ("finished", "", {"scores": GOOD}),
        ("unfinished", "step 100 of 100 was the last to be logged", {}),
        ("unfinished", "its report is of step 50 of 100", {"scores": GOOD, "step": 50}),
        ("failed", "the folder is empty: give another", {"log": f"{INFO}{ERROR}the folder is empty:\ngive another\n"}),
        ("failed", "KeyError: 'x'", {"log": f"{INFO}{ERROR}'x'\n{TRACE}"}),
        ("unfinished", "", {"log": f"{ERROR}'x'\n{TRACE}{INFO}"}),  # resumed
        ("finished", "", {"log": f"{ERROR}'x'\n", "scores": GOOD}),
        ("diverged", "train/mel is nan at step 9", {"losses": [{"step": 9, "train/mel": math.nan}], "scores": GOOD}),
        ("diverged", "train/l1 is inf at step 9", {"losses": [{"step": 9, "train/l1": math.inf}], "log": f"{ERROR}x"}),
        ("diverged", "nan", {"losses": [{"step": 9, "train/l1": "nan"}, {"step": 9, "val/x": 1}, {"step": 19}]}),
        ("finished", "", {"losses": [{"step": 9, "train/l1": "nan"}, {"step": 19, "train/l1": 2}], "scores": GOOD}),
        ("finished", "", {"losses": [{"step": 9, "train/grad_norm/codec": "inf"}], "scores": GOOD}),
        ("diverged", "no clip of its report has a score", {"scores": {"stoi": math.nan}}),
    ],
)
def test_the_status_of_a_run(tmp_path, state, reason, about):
    status = Run(write_run(tmp_path / "run", **about)).status
    assert (status.state, reason in status.reason) == (state, True)
    assert "\n" not in status.reason
    assert bool(status.reason) == (state != "finished")


def test_a_broken_report_is_a_reason_and_other_broken_files_are_errors(tmp_path):
    run = Run(write_run(tmp_path / "run"))
    (run.folder / "report.json").write_text("{")
    assert run.status.state == "unfinished"
    assert "report.json is no report" in run.status.reason
    for file, text in (("config.yaml", "a: ["), ("csv/metrics.csv", "a,b\n1,2\n"), ("csv/metrics.csv", "step,a\n1,x")):
        broken = write_run(tmp_path / file.replace("/", "_") / text[-1].strip("\n") / "run")
        (broken / file).write_text(text)
        with pytest.raises(RunError, match=file.rpartition("/")[2]):
            Run(broken).status  # noqa: B018


def test_curves_join_the_parts_of_a_resumed_run(tmp_path):
    folder = write_run(tmp_path / "run", losses=[{"epoch": 0, "step": 20, "train/mel": 7.0}])
    parts = folder / "csv"
    first = [{"lr": 0.1, "step": 10}, {"step": 10, "train/mel": 9.0}, {"step": 15, "train/mel": 8.5}]
    write_csv(parts / "metrics-1.csv", first)
    write_csv(parts / "metrics-2.csv", [{"step": 15, "val/stoi": 0.5}])  # again from a checkpoint of step 10
    write_csv(parts / "metrics-10.csv", [{"step": 18, "train/mel": 8.0}])
    curves = Run(folder).curves()
    assert set(curves) == {"step", "lr", "train/mel", "val/stoi"}
    assert curves["step"].tolist() == [10, 15, 18, 20]
    assert curves["train/mel"].fillna(-1).tolist() == [9.0, -1, 8.0, 7.0]
    assert curves["lr"].dropna().tolist() == [0.1]
    assert Run(write_run(tmp_path / "none", losses=[])).curves() is None


def test_names_are_the_settings_that_differ(tmp_path):
    """A group implies what is in it, a number what refers to it; name and folder are no settings."""

    def named(*runs):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return run_names([Run(write_run(folder / str(n), *about)) for n, about in enumerate(runs)])

    runs = []
    for disc, members in (("none", {}), ("msd", {"msd": {"width": 4}})):
        for seed in (0, 1):
            config = {"name": f"run{seed}{disc}", "seed": seed, "disc": {"members": members}, "data": {"seed": seed}}
            config |= {"lr": 0.1, "best": {"dirpath": str(tmp_path / str(len(runs)) / "checkpoints")}}
            groups = {"disc": disc, "loss": "mel", "experiment": None}
            runs.append(([f"seed={seed}", f"disc={disc}", "lr=0.1"], groups, config))
    assert named(*runs) == ["disc=none seed=0", "disc=none seed=1", "disc=msd seed=0", "disc=msd seed=1"]
    pairs = ((1e-3, 8), (1e-4, 12), (1e-4, 8))
    numbers = [([], {}, {"lr": lr, "optim": {"lr": lr}, "codec": {"n_q": n_q}}) for lr, n_q in pairs]
    assert named(*numbers) == [f"lr={lr} codec.n_q={n_q}" for lr, n_q in pairs]
    presets = [([f"model={m}"], {"encoder": m * 2, "model": m}, {"channels": m * 3}) for m in "ab"]
    assert named(*presets) == ["model=a", "model=b"]
    together = [([f"disc={d}", f"lr={lr}"], {"disc": d}, {"lr": lr}) for d, lr in (("a", 1), ("b", 2))]
    assert named(*together) == ["disc=a lr=1", "disc=b lr=2"]


def test_runs_without_differences_are_named_by_their_folders(tmp_path):
    same = [Run(write_run(tmp_path / part / "0", ["lr=1"], {}, {"lr": 1})) for part in ("a", "b")]
    assert run_names(same[:1]) == ["0"]
    assert run_names(same) == ["a/0", "b/0"]
    other = Run(write_run(tmp_path / "c" / "1", ["lr=2"], {}, {"lr": 2}))
    assert run_names([*same, other]) == ["lr=1 (a/0)", "lr=1 (b/0)", "lr=2"]


def test_a_run_that_failed_before_its_configuration_was_resolved(tmp_path):
    """Its overrides are known; settings that are not known are no differences."""
    config = {"lr": 0.1, "optim": {"lr": 0.1}, "encoder": {"channels": 4}}
    write_run(tmp_path / "0", ["encoder.channels=4"], {"disc": "none"}, config)
    bad = tmp_path / "bad"
    unresolved = {"lr": 0.1, "optim": {"lr": "${lr}"}, "encoder": {"channels": -3}}
    write_hydra(bad, ["encoder.channels=-3"], {"disc": "none"}, unresolved)
    (bad / "train.log").write_text(f"{ERROR}channels")
    runs = find_runs([tmp_path])
    assert run_names(runs) == ["encoder.channels=4", "encoder.channels=-3"]
    assert [run.status.state for run in runs] == ["unfinished", "failed"]


@pytest.mark.parametrize(
    ("column", "overridden", "wanted"),
    [
        (["msd", "none", "mfd"], [1, 1, 1], ["none", "msd", "mfd"]),
        (["16", "4", "8.0"], [1, 1, 1], ["4", "8.0", "16"]),
        (["8", "-", "4"], [1, 1, 1], ["-", "4", "8"]),
        (["b", "a", "b"], [1, 1, 1], ["b", "a"]),
        (["b", "a", "c"], [1, 0, 1], ["a", "b", "c"]),
        (["1e-3", None, "1e-4"], [1, 0, 1], ["1e-4", "1e-3"]),
    ],
)
def test_the_reference_level_is_null_the_smallest_the_default_or_the_first(column, overridden, wanted):
    assert levels(column, overridden) == wanted
