"""Run folders: found, told apart, and known by how they ended."""

import logging
import math
import shlex

import pytest

from codec.utils.errors import InputError
from codec.evaluation.runs.factors import Settings, differences, levels
from codec.cli.app import one_sentence
from codec.evaluation.runs.run_folder import Run, RunError, discover, names
from tests.helpers.run_folders import ERROR, INFO, STEPS, report, write_csv, write_hydra, write_run

GOOD = {"stoi": 0.5}


def test_runs_are_found_once_in_natural_order(tmp_path):
    top = tmp_path / "multirun"
    for number in (0, 1, 2, 10):
        write_run(top / str(number))
    write_run(tmp_path / "other" / "deep" / "down")
    (top / "10" / "wandb" / "offline-run-20260102_030405-abc" / "files").mkdir(parents=True)
    write_run(top / "1" / "inside")  # nobody looks inside of a run
    (top / "multirun.yaml").write_text("{}")

    def found(*paths):
        return [str(run.folder.relative_to(tmp_path)) for run in discover(paths)]

    here = ["multirun/0", "multirun/1", "multirun/2", "multirun/10"]
    assert found(top) == here
    assert found(tmp_path) == [*here, "other/deep/down"]
    assert found(top / "10", top / "2", top, top / "2") == here
    wandb = top / "10" / "wandb"
    assert found(wandb) == found(wandb / "offline-run-20260102_030405-abc") == ["multirun/10"]


def test_a_path_without_runs_is_named(tmp_path):
    (tmp_path / "empty" / ".hydra").mkdir(parents=True)
    (tmp_path / "empty" / ".hydra" / "hydra.yaml").write_text("hydra: {job: {name: eval}}")  # of another program
    with pytest.raises(RunError, match=r"there is no run of train.py in .*empty"):
        discover([write_run(tmp_path / "run"), tmp_path / "empty"])
    with pytest.raises(RunError, match="nowhere is no folder"):
        discover([tmp_path / "nowhere"])


def test_the_command_is_what_a_shell_takes_apart_again(tmp_path):
    overrides = ["disc=msd+mfd", "strides=[2, 4]", "name='a b'", "~callbacks.progress", "dataset.path=/a dir/$x"]
    run = Run(write_run(tmp_path / "run", overrides))
    assert shlex.split(run.command) == ["python", "train.py", *overrides]


def test_a_run_without_hydras_files_repeats_its_configuration(tmp_path):
    run = Run(write_run(tmp_path / "run", ["disc=msd"]))
    for file in (run.folder / ".hydra").iterdir():
        file.unlink()
    assert discover([tmp_path]) == [run]
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
        ("unfinished", "no step has been logged", {"losses": []}),
        ("unfinished", "its report is of step 50 of 100", {"scores": GOOD, "step": 50}),
        ("failed", "the folder is empty: give another", {"log": f"{INFO}{ERROR}the folder is empty:\ngive another\n"}),
        ("failed", "KeyError: 'x'", {"log": f"{INFO}{ERROR}'x'\n{TRACE}"}),
        ("unfinished", "", {"log": f"{ERROR}'x'\n{TRACE}{INFO}"}),  # resumed
        ("finished", "", {"log": f"{ERROR}'x'\n", "scores": GOOD}),
        ("diverged", "train/mel is nan at step 9", {"losses": [{"step": 9, "train/mel": math.nan}], "scores": GOOD}),
        ("diverged", "train/l1 is inf at step 9", {"losses": [{"step": 9, "train/l1": math.inf}], "log": f"{ERROR}x"}),
        ("finished", "", {"losses": [{"step": 9, "train/l1": "nan"}, {"step": 19, "train/l1": 2}], "scores": GOOD}),
        ("finished", "", {"losses": [{"step": 9, "train/grad_norm/codec": "inf"}], "scores": GOOD}),
        ("diverged", "no clip of its report has a score", {"scores": {"stoi": math.nan}}),
    ],
)
def test_how_a_run_ended(tmp_path, state, reason, about):
    run = Run(write_run(tmp_path / "run", **about))
    assert (run.state, reason in run.reason) == (state, True)
    assert "\n" not in run.reason
    assert bool(run.reason) == (state != "finished")


def test_losses_are_those_of_the_last_row_that_has_some(tmp_path):
    rows = [{"step": 9, "train/mel": "nan"}, {"step": 9, "val/stoi": 0.5}, {"lr": 0.1, "step": 19}]
    assert Run(write_run(tmp_path / "run", losses=rows)).state == "diverged"


def test_a_broken_report_is_a_reason_and_a_broken_configuration_an_error(tmp_path):
    run = Run(write_run(tmp_path / "run"))
    (run.folder / "report.json").write_text("{")
    assert run.state == "unfinished"
    assert "report.json is no report" in run.reason
    (run.folder / "config.yaml").write_text("a: [")
    with pytest.raises(RunError, match=r"config.yaml cannot be read"):
        Run(run.folder).state  # noqa: B018


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


def test_what_a_run_has(tmp_path):
    run = Run(write_run(tmp_path / "run", ["seed=3"], config={"seed": 3}, scores=GOOD))
    assert (run.seed, run.config["max_steps"], run.overrides) == ("3", STEPS, ["seed=3"])
    assert run.checkpoint == run.folder / "checkpoints" / "last.ckpt"
    assert run.report.facts == report(GOOD).facts


def made(tmp_path, *runs):
    """(overrides, groups, config) of each run -> the runs."""
    return [Run(write_run(tmp_path / str(n), *about)) for n, about in enumerate(runs)]


def test_names_are_what_differs(tmp_path):
    """A group stands for all that is in it, a number for all that refer to it; what a run calls itself says nothing."""
    runs = []
    for disc, members in (("none", {}), ("msd", {"msd": {"width": 4}})):
        for seed in (0, 1):
            config = {"name": f"run{seed}{disc}", "seed": seed, "disc": {"members": members}, "data": {"seed": seed}}
            config["best"] = {"dirpath": str(tmp_path / str(len(runs)) / "checkpoints")}
            groups = {"disc": disc, "loss": "mel", "experiment": None}
            runs.append(([f"seed={seed}", f"disc={disc}", "lr=0.1"], groups, {**config, "lr": 0.1}))
    wanted = ["disc=none seed=0", "disc=none seed=1", "disc=msd seed=0", "disc=msd seed=1"]
    assert names(made(tmp_path, *runs)) == wanted


def test_names_of_numbers_and_of_presets(tmp_path):
    numbers = [([], {}, {"lr": lr, "optim": {"lr": lr}, "codec": {"n_q": n_q}}) for lr, n_q in ((1e-3, 8), (1e-4, 12))]
    numbers.append(([], {}, {"lr": 1e-4, "optim": {"lr": 1e-4}, "codec": {"n_q": 8}}))
    wanted = ["lr=0.001 codec.n_q=8", "lr=0.0001 codec.n_q=12", "lr=0.0001 codec.n_q=8"]
    assert names(made(tmp_path / "numbers", *numbers)) == wanted
    presets = [
        ([f"model={m}"], {"encoder": e, "model": m}, {"channels": c}) for m, e, c in (("a", "x", 1), ("b", "y", 2))
    ]
    assert names(made(tmp_path / "presets", *presets)) == ["model=a", "model=b"]


def test_runs_that_nothing_tells_apart_have_their_folders_names(tmp_path):
    same = [Run(write_run(tmp_path / part / "0", ["lr=1"], {}, {"lr": 1})) for part in ("a", "b")]
    assert names(same[:1]) == ["0"]
    assert names(same) == ["a/0", "b/0"]
    other = Run(write_run(tmp_path / "c" / "1", ["lr=2"], {}, {"lr": 2}))
    assert names([*same, other]) == ["lr=1 (a/0)", "lr=1 (b/0)", "lr=2"]


def test_a_run_that_ended_before_its_configuration_was_resolved(tmp_path):
    """What it was told is known from Hydra; what it was not told is not mistaken for a difference."""
    config = {"lr": 0.1, "optim": {"lr": 0.1}, "encoder": {"channels": 4}}
    (good,) = made(tmp_path, (["encoder.channels=4"], {"disc": "none"}, config))
    bad = tmp_path / "bad"
    unresolved = {"lr": 0.1, "optim": {"lr": "${lr}"}, "encoder": {"channels": -3}}
    write_hydra(bad, ["encoder.channels=-3"], {"disc": "none"}, unresolved)
    (bad / "train.log").write_text(f"{ERROR}channels")
    runs = discover([tmp_path])
    assert names(runs) == ["encoder.channels=4", "encoder.channels=-3"]
    assert [run.state for run in runs] == ["unfinished", "failed"]
    assert good in runs


def test_overrides_that_change_together_stay_apart():
    """Nothing says which of the two does it, so neither may stand for the other."""
    told = [Settings([f"disc={d}", f"lr={lr}"], {"disc": d}, {"lr": lr}) for d, lr in (("a", "1"), ("b", "2"))]
    assert list(differences(told)) == ["disc", "lr"]


@pytest.mark.parametrize(
    ("column", "given", "wanted"),
    [
        (["msd", "none", "mfd"], [1, 1, 1], ["none", "msd", "mfd"]),
        (["16", "4", "8.0"], [1, 1, 1], ["4", "8.0", "16"]),
        (["8", "-", "4"], [1, 1, 1], ["-", "4", "8"]),
        (["b", "a", "b"], [1, 1, 1], ["b", "a"]),
        (["b", "a", "c"], [1, 0, 1], ["a", "b", "c"]),
        (["1e-3", None, "1e-4"], [1, 0, 1], ["1e-4", "1e-3"]),
    ],
)
def test_the_first_level_is_nothing_the_smallest_the_default_or_the_first(column, given, wanted):
    assert levels(column, [bool(g) for g in given]) == wanted


def test_a_run_alone_keeps_its_error(tmp_path):
    """In its log, as a run of a sweep does, with the trace where the input is not at fault."""
    handler = logging.FileHandler(tmp_path / "train.log")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    write_hydra(tmp_path, [], {}, {})
    logging.root.addHandler(handler)
    try:
        with pytest.raises(SystemExit), one_sentence():
            raise InputError("no step is asked for")
        assert Run(tmp_path).reason == "no step is asked for"
        with pytest.raises(KeyError), one_sentence():
            raise KeyError("x")
        assert Run(tmp_path).reason == "KeyError: 'x'"
    finally:
        logging.root.removeHandler(handler)
        handler.close()


def test_the_command_of_a_resumed_run_begins_anew(tmp_path):
    own, other = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", "ckpt_path=elsewhere/last.ckpt"
    run = Run(write_run(tmp_path / "run", ["lr=1", own]))
    assert shlex.split(run.command) == ["python", "train.py", "lr=1"]
    run = Run(write_run(tmp_path / "next", ["lr=1", other]))
    assert shlex.split(run.command) == ["python", "train.py", "lr=1", other]


def test_links_to_runs_are_followed_once(tmp_path):
    run = write_run(tmp_path / "store" / "run", scores={"stoi": 0.5})
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "a").symlink_to(run)
    (tmp_path / "chosen" / "up").symlink_to(tmp_path)
    assert [found.folder.resolve() for found in discover([tmp_path / "chosen"])] == [run]
