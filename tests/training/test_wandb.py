"""Reports in W&B, offline."""

import json
import sys

import wandb

from codec.evaluation.runs.run_folder import Run
from codec.training.wandb import log_later, log_now
from tests.helpers.run_folders import report, write_run
from tests.helpers.secrets import SECRETS, files_with_secrets


def test_a_report_follows_its_run_after_it_has_ended(tmp_path, monkeypatch):
    wandb.teardown()  # the session of an earlier test's sweep would give the run its own id
    folder = write_run(tmp_path / "run", config={"logger": {"wandb": {"project": "test"}}})
    with wandb.init(project="test", dir=folder, mode="offline", id="my-run-7"):
        log_now("report", report({"stoi": 0.75}))
    monkeypatch.setattr(sys, "argv", ["eval.py", f"ckpt={folder}", f"+dataset.password={SECRETS[0]}"])
    assert log_later(Run(folder), "eval", report({"stoi": 0.5}, speaker=None))
    assert not files_with_secrets(folder)
    wandb.teardown()
    assert log_later(Run(folder), "again", report({"stoi": 0.5}, speaker=None))
    ids = [part.name for kept in folder.glob("wandb/offline-run-*") for part in kept.glob("run-*.wandb")]
    assert ids == ["run-my-run-7.wandb"] * 3
    pattern = "wandb/*run-*-*/files/media/table/{}/clips_*.table.json"  # the tables of clips that W&B keeps
    found = [[*folder.glob(pattern.format(name))] for name in ("report", "eval")]
    during, after = (json.loads(file.read_text()) for (file,) in found)
    assert during["columns"] == after["columns"] == ["clip", "speaker", "seconds", "stoi"]
    assert [row[3] for row in during["data"]] == [0.5, 1.0]
    assert [row[3] for row in after["data"]] == [0.25, 0.75]


def test_without_wandb_nothing_is_logged_and_no_score_is_lost(tmp_path, monkeypatch, caplog):
    plain = write_run(tmp_path / "plain")
    assert not log_later(Run(plain), "eval", report({"stoi": 0.5}))
    log_now("report", report({"stoi": 0.5}))
    assert not (plain / "wandb").exists()

    def refuse(**options):
        raise wandb.errors.CommError("no network")

    monkeypatch.setattr(wandb, "init", refuse)
    folder = write_run(tmp_path / "run", config={"logger": {"wandb": {"project": "test"}}})
    (folder / "wandb" / "run-20260101_000000-x").mkdir(parents=True)
    assert not log_later(Run(folder), "eval", report({"stoi": 0.5}))
    assert "no network" in caplog.text
