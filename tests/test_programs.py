"""train.py and eval.py as a user calls them, at a size of seconds; two calls in processes of their own."""

import csv
import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from codec.checkpoints.save import step_of
from codec.cli.app import RENAMED, renamed
from codec.training.setup import with_current_classes
from codec.utils.quoting import override
from tests.helpers.programs import call, start
from tests.helpers.training import SMALL_RUN, composed

pytestmark = pytest.mark.usefixtures("_score_here", "_costs_nothing")
HEAVY = ("torch", "lightning", "datasets", "wandb", "transformers", "matplotlib", "pandas", "scipy")
# A notebook's display, no UTF-8, no home, no terminal, neither assertions nor docstrings.
BARE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "LC_ALL": "C", "HOME": "/nowhere", "TERM": "dumb"}
BARE |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "3", "PYTHONOPTIMIZE": "2"}


def steps(run_folder: Path) -> list[int]:
    """For which training losses were logged."""
    with open(run_folder / "csv" / "metrics.csv") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("train/mel")]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_train_report_resume_and_evaluate(speech_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25"]
    small = [
        *SMALL_RUN,
        *data,
        "disc=msd",
        "disc.members.msd.width=4",
        "disc.members.msd.scales=1",
        "adversarial_start=1",
    ]
    whole, second = tmp_path / "whole", tmp_path / "second=2 é"

    assert call("train.py", *small, "max_steps=4", f"run_dir={whole}") == 0
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert config["dataset"]["path"] == str(speech_folder)
    assert "${" not in (whole / "config.yaml").read_text()
    assert read(whole / "parts.json")["git_commit"]
    assert set(read(whole / "parts.json")["parts"]) == {"encoder", "quantizer", "decoder", "discriminator msd"}
    assert read(whole / "report.json")["facts"]["step"] == 4
    assert read(whole / "timing.json")[config["name"]]["rtf_decode"] > 0
    assert config["name"] in (whole / "report.html").read_text()
    last = whole / "checkpoints" / "last.ckpt"
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} == {p.name for p in last.parent.iterdir()}
    checkpoint = torch.load(last, weights_only=True)
    assert set(checkpoint["ema"]) < {k.removeprefix("codec.") for k in checkpoint["state_dict"]}

    # Another run goes on where it ended; that it ends as an undisturbed one would is tested in training/test_resume.py.
    capfd.readouterr()
    resume = [f"ckpt_path={last}", override("run_dir", second), "report.clips=1", "report.audio=0"]
    assert call("train.py", *small, "max_steps=6", *resume) == 0
    shown = capfd.readouterr().out
    assert all(text in shown for text in ("95 % interval", "report.html", "tensorboard --logdir", "python eval.py"))
    (line,) = (line for line in shown.splitlines() if line.startswith("evaluate"))
    assert OverridesParser.create().parse_override(shlex.split(line)[-1]).value() == str(second)
    assert (steps(whole), steps(second)) == ([0, 1, 2, 3], [4, 5])
    assert step_of(second / "checkpoints" / "last.ckpt") == 6

    # Several checkpoints and baselines on other recordings.
    several = ["clips=1", "workers=0", "baseline=[identity,low_pass]", "listening=1", f"out={tmp_path / 'out'}"]
    assert call("eval.py", *several, f"ckpt=[{whole},'{second}']", *data[:2], "dataset.holdout=1") == 0
    files = sorted(path.name for path in (tmp_path / "out").glob("*.json"))
    assert files == ["identity.json", "low_pass.json", "max_steps=4.json", "max_steps=6.json", "timing.json"]
    assert read(tmp_path / "out" / "identity.json")["summary"]["mel_distance"]["mean"] == 0
    assert (tmp_path / "out" / "listening.html").is_file()

    # What training held out, with fewer codebooks, in a process of its own.
    folder, stem = last.parent / "eval_last", f"{config['name']}_n_q=3"
    held_out = ["n_q=3", "seconds=1.0", "workers=0", "metrics=[mel_distance]"]
    scored = start("eval.py", f"ckpt={whole}", *held_out, cwd=tmp_path, **BARE)
    assert scored.returncode == 0, scored.stderr
    report = read(folder / f"{stem}.json")
    assert report["facts"]["kbps"] == pytest.approx(3 * 4 * 50 / 1000)
    assert (report["facts"]["n_q"], report["facts"]["run"]) == (3, "../..")
    assert report["facts"]["gflop_decode"] > 0  # profiled in the process alone
    assert report["summary"].keys() == {"mel_distance"}
    assert report["clips"]
    assert all((folder / name).is_file() for name in (f"{stem}.md", f"{stem}.csv", "report.html", "timing.json"))

    # Another architecture is refused by name before anything runs.
    refused = call("train.py", *small, "max_steps=7", "latent_dim=24", f"ckpt_path={last}", f"run_dir={whole}")
    assert refused.startswith(f"error: the weights in {last} do not fit this model:")
    assert "12 codebooks" in call("eval.py", f"ckpt={last}", "n_q=99")


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("train.py", ["dataset=folder", "dataset.path=/nowhere"], "/nowhere"),
        ("train.py", ["disc=mfd+msd"], "msd+mfd"),
        ("train.py", ["ckpt_path=last", "run_dir=new"], "no checkpoint in new/checkpoints"),
        ("train.py", ["ckpt_path=nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
        ("train.py", ["frame_rate=60"], "set frame_rate=50, or change the strides"),
        ("train.py", ["dataset=folder", "dataset.path=data/lang=en"], """'dataset.path="data/lang=en"'"""),
        ("train.py", ["run_dir=~/Füße"], f"""'run_dir="{Path.home()}/Füße"'"""),
        ("train.py", ["runs"], "NAME=VALUE"),
        ("train.py", ["logger=null"], "~logger"),
        ("train.py", ["batch_size=0", "dataset.voices=4", "dataset.utterances=1"], "batch_size=0"),
        ("train.py", ["~encoder"], "encoder"),
        ("train.py", ["segment=0.01", "data.workers=0", "dataset.voices=4", "dataset.utterances=1"], "error: segment:"),
        ("eval.py", [], "nothing to evaluate"),
        ("eval.py", ["ckpt=/nowhere/last.ckpt"], "no checkpoint at /nowhere/last.ckpt"),
        ("eval.py", ["ckpt=/nowhere/last.ckpt", "metrics=[pesk]"], "pesk"),
        ("eval.py", ["split=all"], "train, val or test"),
        ("eval.py", ["listening=3", "audio=2"], "raise audio=2"),
        ("eval.py", ["clips=0"], "clips=0"),
        ("eval.py", ["device=tpu"], "device tpu"),
        ("eval.py", ["ckpt=5"], "ckpt=5"),
    ],
)
def test_bad_input_ends_in_one_sentence(program, arguments, words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    code = call(program, *arguments)
    shown = f"{capfd.readouterr().err}{code}"
    assert code
    assert words in shown
    assert "Traceback" not in shown


def test_a_misspelt_option_ends_a_process_that_has_imported_nothing_heavy(tmp_path):
    result = start("train.py", "chanels=3", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert result.returncode == 1
    assert "Could not override 'chanels'" in result.stderr
    assert "Traceback" not in result.stderr
    imported = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time")
    }
    assert "hydra" in imported
    assert not imported & set(HEAVY)


def test_renamed_options_end_in_a_sentence_with_the_new_name(capfd):
    expected = {
        "quantizer=none,rvq12": "quantizer=rvq quantizer.n_q=12",
        "callbacks.guard.limit=3": "callbacks.nonfinite_guard.limit=3",
        "~callbacks.leave": "callbacks.preemption",
    }
    for old, new in expected.items():
        assert new in call("train.py", old)
    assert [renamed(one) for one in ("quantizer=rvq", "callbacks.guardian=1", "callbacks.last.filename=x")] == [
        None
    ] * 3
    assert all(renamed(new) is None for new in RENAMED.values())


def test_the_configuration_of_an_older_run_gets_todays_classes():
    old = OmegaConf.to_container(composed())
    del old["report"]["_target_"], old["report"]["_partial_"]
    old["callbacks"]["preemption"]["_target_"] = "codec.saving.LeaveOnSignal"
    for task in ({}, {"task": "codec.jobs.codec"}):
        cfg = with_current_classes(OmegaConf.create({**{k: v for k, v in old.items() if k != "task"}, **task}))
        assert cfg == composed()
