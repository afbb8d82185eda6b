"""Every sweep as W&B and as Hydra expand it: the files are valid, the two agree, and their runs compose."""

import json
import math

import pytest
import wandb
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from wandb import wandb_agent

import sweeps  # W&B's engine
import train
from codec.evaluation.runs.run_folder import Run
from codec.training.setup import chosen
from codec.training.wandb import ending_wandb
from codec.utils.errors import InputError
from tests.helpers.programs import ROOT, call
from tests.helpers.secrets import SECRETS, files_with_secrets
from tests.helpers.training import SHORT, SMALL_CODEC, composed, only_fit

pytestmark = pytest.mark.usefixtures("_score_here")

SWEEPS = sorted(p.stem for p in (ROOT / "sweeps").glob("*.yaml"))
GRIDS = [name for name in SWEEPS if name.endswith("_grid")]


def wandb_file(name: str) -> dict:
    return yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())


def suggested(name: str) -> list[dict[str, dict]]:
    """What W&B's engine suggests: every point of a grid, or the first of a search."""
    config = wandb_file(name)
    config.pop("run_cap", None)  # W&B knows it; this release of the engine, the last for the pinned numpy, does not
    assert sweeps.schema_violations_from_proposed_config(config) == []
    runs = sweeps.next_runs(sweeps.SweepConfig(config), [], n=1000 if config["method"] == "grid" else 1)
    return [json.loads(json.dumps(run.config)) for run in runs if run is not None]  # as agents receive them


class Started:
    """Stands for the process that an agent starts."""

    def __init__(self, command: list[str], env: dict[str, str], **_):
        self.command, self.env = command, env


@pytest.fixture
def agent(monkeypatch, tmp_path):
    """(sweep, suggested run) -> what W&B's agent would start for it; the environment is then that of the run."""
    monkeypatch.setattr(wandb_agent, "AgentProcess", Started)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SWEEP_ID"):
        monkeypatch.setenv(name, "sweep")  # the agent sets them; here they are forgotten again

    def start(name: str, args: dict[str, dict]) -> Started:
        config = wandb_file(name)
        agent = wandb_agent.Agent(api=None, queue=None)
        agent._sweep_command = config["command"]
        agent._command_run({"run_id": "run1", "program": config["program"], "args": args})
        return agent._run_processes["run1"]

    return start


def overrides(started: Started) -> list[str]:
    assert started.command[:3] == ["/usr/bin/env", "python", "train.py"]
    return started.command[3:]


def test_hydra_and_wandb_have_the_same_sweeps():
    assert sorted(p.stem for p in (ROOT / "conf" / "sweep").glob("*.yaml")) == SWEEPS


@pytest.mark.parametrize("name", SWEEPS)
def test_wandb_sweeps_compose(name, agent):
    assert f"wandb sweep sweeps/{name}.yaml" in (ROOT / "sweeps" / f"{name}.yaml").read_text()
    config, points = wandb_file(name), suggested(name)
    assert config["metric"] == {"name": composed().search_metric, "goal": "minimize"}
    for point in (points[0], points[-1]):
        cfg = composed(*overrides(agent(name, point)))
        assert cfg.logger.wandb.project == config["project"]
        assert cfg.trainer.devices == 1
        assert cfg.max_steps % cfg.val_every == 0, "W&B has the score of the last validation, not of the last step"


def test_a_command_of_an_agent_trains_in_the_run_of_the_agent(agent, speech_folder, tmp_path):
    (name,) = set(SWEEPS) - set(GRIDS)
    command, config = overrides(agent(name, suggested(name)[-1])), wandb_file(name)
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25"]
    wandb.teardown()  # an agent starts each run in a new process; here an earlier test's session would answer
    with ending_wandb():
        only_fit(composed(*command, *SHORT, *SMALL_CODEC, *data, f"run_dir={tmp_path}"))
        assert wandb.run.id == "run1"
        assert math.isfinite(wandb.run.summary[config["metric"]["name"]])


def hydra_points(name: str) -> list[list[str]]:
    """The overrides of every run, from Hydra's sweeper."""
    params = composed(f"sweep={name}", hydra=True).hydra.sweeper.params
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # Hydra imports its plugins anew when it begins

    sweeper = BasicSweeper(max_batch_size=None, params=OmegaConf.to_container(params))
    (batch,) = sweeper.split_arguments(OverridesParser.create().parse_overrides(sweeper._parse_config()), None)
    return batch


@pytest.mark.parametrize("name", GRIDS)
def test_hydra_and_wandb_have_the_same_grid(name):
    assert f"python train.py -m sweep={name}" in (ROOT / "conf" / "sweep" / f"{name}.yaml").read_text()
    theirs = [{f"{k}={v['value']}" for k, v in point.items()} - {"logger=wandb"} for point in suggested(name)]
    ours = [set(point) for point in hydra_points(name)]
    assert len(ours) == len(theirs) == len({frozenset(point) for point in ours})
    assert all(point in theirs for point in ours)
    options = set()
    for point in ours:  # so many that every option comes
        if new := {o for o in point if not o.startswith("seed=")} - options:
            options |= new
            composed(*point, f"sweep={name}", "run_dir=x")


@pytest.mark.usefixtures("_costs_nothing")
def test_a_multirun_goes_on_after_a_run_that_fails(speech_folder, tmp_path, capfd):
    """Two runs that train and two that are refused, in one process, each with a folder and a W&B run of its own.

    No secret of the command line is in any file, W&B's own among them.
    """
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "logger=wandb"]
    short = [o for o in SHORT if not o.startswith("max_steps")]
    sweep = ["-m", "sweep=disc_grid", "disc=none", "quantizer.n_q=2,3", "seed=0", "max_steps=0,2"]
    sweep += [f"hydra.sweep.dir={tmp_path}"]
    secrets = [f"+hub.token={SECRETS[1]}", f"+mirrors=[{{url: https://me:{SECRETS[0]}@host/x}},{{key: {SECRETS[0]}}}]"]
    assert call("train.py", *sweep, *data, *short, *SMALL_CODEC, "quantizer.codebook_size=16", *secrets) == 1
    assert not files_with_secrets(tmp_path)
    error = "max_steps=0, but training is counted in steps"
    assert error in capfd.readouterr().err
    for number, steps in enumerate([0, 2, 0, 2]):
        folder = tmp_path / str(number)
        assert f"error: {error}" in (folder / "train.log").read_text() or steps
        assert (folder / "report.json").is_file() == bool(steps)
        assert len(list(folder.glob("wandb/offline-run-*"))) == (1 if steps else 0)
    assert [yaml.safe_load((tmp_path / n / "config.yaml").read_text())["quantizer"]["n_q"] for n in "13"] == [2, 3]


def test_no_run_of_a_sweep_starts_processes(tmp_path, capfd):
    assert call("train.py", "-m", "trainer.devices=2", "seed=0", f"hydra.sweep.dir={tmp_path}") == 1
    assert "would begin the whole sweep anew" in capfd.readouterr().err


def test_runs_of_agents_have_folders_of_their_own(monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "k3j2")
    monkeypatch.delenv("RUN_ID", raising=False)
    assert composed(hydra=True).hydra.run.dir == "runs/soundstream_tiny/k3j2"


def test_optuna_searches_the_learning_rate(tmp_path, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install -r requirements-sweeps.txt")
    tried = {}
    monkeypatch.setattr(train, "train", lambda cfg: tried.setdefault(cfg.lr, (math.log10(cfg.lr) + 3) ** 2))
    few = ["hydra.sweeper.n_trials=4", f"hydra.sweep.dir={tmp_path}"]
    assert call("train.py", "-m", "sweep=lr_search", *few) == 0
    best = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert len(tried) == 4
    assert best["best_params"]["lr"] == min(tried, key=tried.get)
    assert best["best_value"] == min(tried.values())


def test_searches_choose_by_validation_as_best_ckpt_does():
    for task in ("task=codec", "task=flow"):
        cfg = composed(task)
        assert cfg.search_metric.startswith("val/")
        assert cfg.search_metric == cfg.callbacks.best.monitor


@pytest.mark.usefixtures("_costs_nothing")
@pytest.mark.parametrize(("steps", "every"), [(2, 2), (3, 2), (1, 2)])
def test_a_search_gets_the_validation_of_the_last_step(speech_folder, tmp_path, steps, every):
    """Neither that of an earlier step, nor the test's."""
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "logger=csv"]
    cfg = composed(*SHORT, *SMALL_CODEC, *data, "quantizer.codebook_size=16", f"run_dir={tmp_path}")
    cfg.max_steps, cfg.val_every, cfg.report.seconds = steps, every, 0.4  # other clips than those of validation
    found = train.train(cfg)
    curves = Run(tmp_path).curves()
    last = curves.dropna(subset="val/mel_distance").iloc[-1]
    assert found == pytest.approx(last["val/mel_distance"], rel=1e-4)
    assert last["step"] + 1 == pytest.approx(steps, abs=1)
    assert found != pytest.approx(Run(tmp_path).report.clips["mel_distance"].mean(), rel=1e-3)


def test_a_value_of_the_training_or_the_test_chooses_nothing():
    values = {"train/mel": 0.1, "val/mel_distance": 0.5}
    assert chosen("val/mel_distance", values) == 0.5
    for name in ("train/mel", "report/mel_distance", "val/mel"):
        with pytest.raises(InputError, match=r"search_metric=.*val/mel_distance"):
            chosen(name, values)


@pytest.mark.parametrize(("launcher", "plugin"), [("local", "joblib"), ("slurm", "submitit")])
def test_launchers_compose(launcher, plugin):
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher", reason="pip install -r requirements-sweeps.txt")
    cfg = composed(f"hydra/launcher={launcher}", hydra=True).hydra.launcher
    assert f"hydra_{plugin}_launcher" in cfg._target_
    assert cfg.get("n_jobs") == 2 or cfg.timeout_min == 1440
