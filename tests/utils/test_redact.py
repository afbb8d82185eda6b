"""Secrets in configurations, overrides, logs and records: hidden wherever they stand, and nothing else is."""

import json
import logging
from pathlib import Path

import pytest
import yaml

from codec.cli.app import one_sentence
from codec.evaluation.runs.run_folder import Run
from codec.utils.errors import InputError
from codec.utils.redact import HIDDEN, redact, redact_hydra, redact_override
from codec.utils.safe_io import read_yaml
from tests.helpers import programs
from tests.helpers.run_folders import write_run
from tests.helpers.secrets import SECRETS, files_with_secrets

ROOT = Path(__file__).parents[2]
CONFIGURED = {
    "logger": {"wandb": {"api_key": SECRETS[0], "project": "p", "entity": "me"}},
    "dataset": {"path": f"https://me:{SECRETS[0]}@host/data?x=1&token={SECRETS[0]}#top", "hf_token": SECRETS[1]},
    "options": [{"password": SECRETS[0]}, f"--auth {SECRETS[2]}", {"client_secret": [SECRETS[0]]}],
}


def test_configurations():
    hidden = redact(CONFIGURED)
    assert not [secret for secret in SECRETS if secret in json.dumps(hidden)]
    assert hidden["logger"]["wandb"] == {"api_key": HIDDEN, "project": "p", "entity": "me"}
    assert hidden["dataset"]["path"] == f"https://{HIDDEN}@host/data?x=1&token={HIDDEN}#top"
    assert redact(hidden) == hidden
    assert redact("${oc.env:WANDB_API_KEY}", "api_key") == "${oc.env:WANDB_API_KEY}"
    names = ["Authorization", "Cookie", "connection_string", "pwd", "aws_access_key_id", "credential"]
    secret = dict.fromkeys(names, "SSSS") | {"passwd": 4711, "password": 12345678, "client_secret": 1.5}
    assert set(redact({"a": {"b": secret}})["a"]["b"].values()) == {HIDDEN}
    plain = {"n_tokens": 512, "pad_token": 0, "token_rate": 12.5, "token": None, "keyboard": "x", "password": None}
    assert redact(plain) == plain
    for file in (ROOT / "conf").rglob("*.yaml"):
        content = yaml.safe_load(file.read_text())
        assert redact(content) == content, file


@pytest.mark.parametrize(
    "override",
    [
        "+logger.wandb.api_key=SSSS",
        "dataset.path=s3://k:SSSS@b/x",
        f"x={SECRETS[1]}",
        r"+a=[{url:https\://me\:SSSS@host/x}]",  # as Hydra's sweeper writes it
        "+a=[{b: 1, api_key: 'SSSS, SSSS'},{password:SSSS,c:2}]",
        "+dataset.storage_options={key:SSSS,secret:SSSS}",
        "+dataset.storage_options={client_kwargs:{headers:{Authorization:'Bearer SSSS, SSSS'}},a:1}",
        "+a={b:[{c:1,password:[SSSS,SSSS]}],token: {x: SSSS}}",
        "+a={Authorization: Bearer SSSS}",
        "+a.headers.Cookie=SSSS",
        "+a.pwd=SSSS",
        "dataset.path=https://me:p@SSSS@host/x",
        "dataset.path=https://me:p/SSSS@host/x",
        "dataset.path=https://host/x?X-Amz-Credential=SSSS&X-Amz-Signature=SSSS",
        "+a.connection=AccountName=x;AccountKey=SSSS;EndpointSuffix=y",
        "+a='Bearer SSSSSSSS'",
    ],
)
def test_overrides_with_secrets(override):
    hidden = redact_override(override)
    assert "SSSS" not in hidden
    assert SECRETS[1] not in hidden
    assert HIDDEN in hidden
    assert redact_override(hidden) == hidden


@pytest.mark.parametrize(
    "override",
    [
        "lr=1e-3",
        "+a={key: ${oc.env:KEY}, b: [1, 'x: y']}",
        "strides=[2,4]",
        "dataset.name=hf://datasets/org/name@main/x",
        "+a={b:{c:1},d:[2,3]}",
        "dataset.path=https://host/x?page=1",
    ],
)
def test_overrides_without_secrets(override):
    assert redact_override(override) == override


def test_the_rest_of_an_override_stays():
    swept = r"+a=[{b: 1, url:https\://me\:SSSS@host/x, api_key: 'SSSS, SSSS'},{password:SSSS,c:2}]"
    hidden = rf"+a=[{{b: 1, url:https\://{HIDDEN}@host/x, api_key: {HIDDEN}}},{{password:{HIDDEN},c:2}}]"
    assert redact_override(swept) == hidden


def test_logs(tmp_path, monkeypatch):
    log = logging.FileHandler(tmp_path / "train.log")
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])

    @one_sentence()
    def program() -> None:
        logging.getLogger("codec.x").warning("%s: no answer", f"https://me:{SECRETS[0]}@host/a")
        raise InputError(f"https://host/b?token={SECRETS[0]} is not there")

    with pytest.raises(SystemExit):
        program()
    log.close()
    text = (tmp_path / "train.log").read_text()
    assert text == f"https://{HIDDEN}@host/a: no answer\nerror: https://host/b?token={HIDDEN} is not there\n"


def test_a_run_that_is_refused_at_once(tmp_path, monkeypatch):
    secret = [f"+secrets.wandb.api_key={SECRETS[0]}", f"+more={{secret:{SECRETS[0]}}}"]
    monkeypatch.delenv("RUN_ID", raising=False)
    assert "error: " in programs.call("train.py", f"hydra.run.dir={tmp_path}", "ckpt_path=last", *secret)
    assert HIDDEN in (tmp_path / ".hydra" / "overrides.yaml").read_text()
    assert not files_with_secrets(tmp_path)


def test_the_records_of_an_older_run(tmp_path):
    override = f"+logger.wandb.api_key={SECRETS[0]}"
    run = write_run(tmp_path / "run", [override, "lr=1e-3"], config=CONFIGURED)
    job = {"name": "train", "override_dirname": f"a=1,{override}"}
    hydra = {"hydra": {"job": job, "overrides": {"task": [override]}}}
    (run / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    (run / "multirun.yaml").write_text(yaml.safe_dump(hydra))
    assert Run(run).command == f"python train.py +logger.wandb.api_key={HIDDEN} lr=1e-3"
    assert SECRETS[0] not in json.dumps(Run(run).config)
    assert SECRETS[0] not in str(Run(run).settings)
    redact_hydra(run)
    assert not files_with_secrets(run / ".hydra")
    assert SECRETS[0] not in (run / "multirun.yaml").read_text()
    assert read_yaml(run / ".hydra" / "overrides.yaml") == [f"+logger.wandb.api_key={HIDDEN}", "lr=1e-3"]
