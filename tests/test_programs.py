"""train.py and eval.py as a user calls them, at a size of seconds; some calls in a process of their own."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from codec.evaluation.metrics.table import METRICS
from tests.helpers.programs import call, start
from tests.helpers.training import SMALL_RUN

pytestmark = pytest.mark.usefixtures("_score_here")


def losses(run_folder: Path) -> dict[int, dict[str, str]]:
    """step -> the training losses logged for it."""
    with open(run_folder / "csv" / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/mel")]
    return {
        int(r["step"]): {k: v for k, v in r.items() if k in ("train/mel", "train/disc", "train/feature")} for r in rows
    }


@pytest.mark.usefixtures("_costs_nothing")
def test_train_report_resume_and_evaluate(speech_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25"]
    small = [*SMALL_RUN, *data, "disc=msd", "disc.members.msd.width=4", "adversarial_start=1"]
    small += ["optim/schedule=exponential"]  # a cosine would know of the longer run

    assert call("train.py", *small, "max_steps=4", f"run_dir={tmp_path / 'whole'}") == 0
    folder = tmp_path / "whole"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["dataset"]["path"] == str(speech_folder)
    assert "${" not in (folder / "config.yaml").read_text()
    parts = json.loads((folder / "parts.json").read_text())
    assert parts["git_commit"]
    assert set(parts["parts"]) == {"encoder", "quantizer", "decoder", "discriminator msd"}
    assert json.loads((folder / "report.json").read_text())["facts"]["step"] == 4
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} == {p.name for p in (folder / "checkpoints").iterdir()}
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    assert set(checkpoint["ema"]) < {k.removeprefix("codec.") for k in checkpoint["state_dict"]}

    # A run of three steps, resumed to four, goes exactly where the whole run went.
    assert call("train.py", *small, "max_steps=3", f"run_dir={tmp_path / 'first'}") == 0  # validates at 2 only
    ckpt = f"ckpt_path={tmp_path / 'first' / 'checkpoints' / 'last.ckpt'}"
    capfd.readouterr()
    assert call("train.py", *small, "max_steps=4", ckpt, f"run_dir={tmp_path / 'second'}") == 0
    shown = capfd.readouterr().out
    for text in ("95 % interval", "report.html", "tensorboard --logdir", "python eval.py ckpt="):
        assert text in shown
    expected = losses(folder)
    assert len(expected) == 4
    assert losses(tmp_path / "first") | losses(tmp_path / "second") == expected
    other = torch.load(tmp_path / "second" / "checkpoints" / "last.ckpt", weights_only=True)
    for part in ("state_dict", "ema"):
        for name, value in checkpoint[part].items():
            same = torch.equal(value, other[part][name]) if torch.is_tensor(value) else value == other[part][name]
            assert same, name

    page = (folder / "report.html").read_text()
    assert config["name"] in page
    assert json.loads((folder / "timing.json").read_text())[config["name"]]["rtf_decode"] > 0

    # Scored again on what training held out, in a process, by the run folder.
    scored = start("eval.py", f"ckpt={folder}", "n_q=3", "seconds=1.0", "workers=0", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert all(text in scored.stdout for text in ("PESQ-WB", "STOI", "95 % interval"))
    stem = f"{config['name']}_n_q=3"
    report = json.loads((last.parent / "eval_last" / f"{stem}.json").read_text())
    assert report["facts"]["n_q"] == 3
    assert report["facts"]["gflop_decode"] > 0
    assert report["facts"]["kbps"] == pytest.approx(3 * 4 * 50 / 1000)
    assert report["facts"]["run"] == "../.."
    assert set(report["summary"]) == set(METRICS)
    for name in (f"{stem}.md", f"{stem}.csv", "report.html", "timing.json"):
        assert (last.parent / "eval_last" / name).is_file()

    # Several checkpoints and baselines on other recordings; the same command gives the same files.
    several = ["clips=1", "workers=0", "metrics=[si_sdr,mel_distance]", "baseline=[identity,low_pass]", "listening=1"]
    several += [f"ckpt=[{folder},{tmp_path / 'second'}]", *data[:2], "dataset.holdout=1"]
    for out in ("a", "b"):
        assert call("eval.py", *several, f"out={tmp_path / out}") == 0
    files = sorted(path.name for path in (tmp_path / "a").glob("*.json"))
    assert files == ["identity.json", "low_pass.json", "second.json", "timing.json", "whole.json"]
    for name in set(files) - {"timing.json"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "identity.json").read_text())["summary"]["mel_distance"]["mean"] == 0
    assert (tmp_path / "a" / "listening.html").is_file()

    # Another architecture is refused by name before anything runs.
    again = call("train.py", *small, "max_steps=6", "latent_dim=24", f"ckpt_path={last}", f"run_dir={folder}")
    assert again.startswith(f"error: the weights in {last} do not fit this model:")
    assert "instead of" in again

    wrong = call("eval.py", f"ckpt={last}", "n_q=99")
    assert wrong == f"error: {last}: n_q=99, but the quantizer has 12 codebooks: choose 1 to 12"


@pytest.mark.parametrize(
    ("program", "arguments", "sentence"),
    [
        ("train.py", ["dataset=folder", "dataset.path=/nowhere"], "/nowhere"),
        ("eval.py", ["ckpt=/nowhere/last.ckpt"], "there is no checkpoint at /nowhere/last.ckpt"),
        ("eval.py", ["ckpt=/nowhere/last.ckpt", "metrics=[pesk]"], "error: there is no metric pesk"),
        ("eval.py", ["split=all"], "error: split=all: choose train, val or test"),
        ("eval.py", ["listening=3", "audio=2"], "raise audio=2"),
        ("eval.py", ["clips=0"], "error: clips=0: give a number from 1"),
        ("eval.py", ["device=tpu"], "error: the device tpu cannot be used"),
        ("eval.py", ["ckpt=5"], "error: ckpt=5: give a path"),
        ("eval.py", [], "there is nothing to evaluate"),
        ("train.py", ["disc=mfd+msd"], "msd+mfd"),
        ("train.py", ["ckpt_path=last", "run_dir=new"], "error: ckpt_path=last, but there is no checkpoint in new/"),
        ("train.py", ["ckpt_path=nowhere.ckpt"], "error: there is no checkpoint at nowhere.ckpt: give the path of"),
        ("train.py", ["frame_rate=60"], "set frame_rate=50, or change the strides"),
        ("train.py", ["segment=0.01", "data.workers=0", "dataset.voices=4", "dataset.utterances=1"], "error: segment:"),
    ],
)
def test_bad_input_ends_in_one_sentence(program, arguments, sentence, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    code = call(program, *arguments)
    shown = f"{capfd.readouterr().err}{code}"
    assert code
    assert sentence in shown
    assert "Traceback" not in shown


def test_bad_input_ends_a_process(tmp_path):
    result = start("train.py", "dataset=folder", "dataset.path=/nowhere", cwd=tmp_path)
    assert result.returncode == 1
    assert "/nowhere" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
