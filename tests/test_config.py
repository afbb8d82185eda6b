"""Every option of every group composes, builds, and trains two steps: a new file in conf/ is tested without an edit
here."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import train
from codec import report
from codec.checkpoint import check_targets
from codec.metrics import METRICS, score_clips
from tests.parts import count

CONF = Path(__file__).parents[1] / "conf"
# A few thousand parameters, half a second of audio, no files but the checkpoint: what is left is the wiring.
TINY = ["channels=4", "latent_dim=16", "batch_size=2", "quantizer.codebook_size=16"]
SHORT = ["segment=0.52", "max_steps=2", "val_every=2", "data.workers=0", "data.val_clips=1", "data.val_seconds=0.6"]
SHORT += ["report.clips=1", "report.seconds=0.6", "report.audio=1", "trainer.log_every_n_steps=1"]
SHORT += ["callbacks.validation.metrics=[mel_distance]", "callbacks.validation.shown=0"]
SHORT += ["~callbacks.progress", "trainer.enable_progress_bar=false"]
CHOICES = {"encoder": "seanet_small", "decoder": "seanet_small", "disc": "none", "logger": "csv", "trainer": "cpu"}


def options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONF / group).glob("*.yaml"))


def composed(*overrides: str):
    with initialize(version_base="1.3", config_path="../conf"):
        return compose("train", overrides=list(overrides))


def short(folder, run, *overrides: str, **choices: str):
    """A configuration that trains two steps on `folder`; `choices` are options of groups."""
    groups = [f"{group}={option}" for group, option in {**CHOICES, **choices}.items()]
    data = ["dataset=folder", f"dataset.path={folder}", "dataset.holdout=0.25", f"run_dir={run}"]
    return composed(*groups, *SHORT, *data, *overrides)


def only_fit(cfg) -> None:
    """Two steps and a validation, without half a gigabyte of checkpoints."""
    del cfg.callbacks.best, cfg.callbacks.last, cfg.callbacks.end
    OmegaConf.update(cfg, "trainer.enable_checkpointing", False, force_add=True)
    trainer, _ = train.fit(cfg)
    assert trainer.global_step == 2
    assert all(bool(torch.isfinite(v)) for v in trainer.logged_metrics.values())
    assert "val/mel_distance" in trainer.logged_metrics


@pytest.fixture(autouse=True)
def _score_here(monkeypatch):
    """The metrics have their own tests; processes for them would cost seconds per option."""
    one = {"mel_distance": METRICS["mel_distance"]}
    monkeypatch.setattr(report, "score_clips", lambda pairs, rate, metrics, workers: score_clips(pairs, rate, one, 0))


GROUPS = ["encoder", "decoder", "quantizer", "distill", "loss", "trainer", "logger", "optim/schedule"]


@pytest.mark.parametrize(("group", "option"), [(g, o) for g in GROUPS for o in options(g)])
def test_options_train_two_steps(group, option, speech_folder, tmp_path):
    size = [o for o in TINY if not (group == "quantizer" and o.startswith("quantizer"))]
    offline = ["logger.wandb.offline=true"] if option == "wandb" else []
    cfg = short(speech_folder, tmp_path, *size, *offline, "disc.members.msd.width=4", **{"disc": "msd", group: option})
    train.train(cfg)
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "report.json").is_file()
    assert len(list((tmp_path / "audio").iterdir())) == 2


@pytest.mark.parametrize("disc", options("disc"))
def test_discriminator_sets_train_two_steps(disc, speech_folder, tmp_path):
    cfg = short(speech_folder, tmp_path, *TINY, disc=disc)
    assert len(cfg.disc.members) == (0 if disc == "none" else disc.count("+") + 1)
    only_fit(cfg)


@pytest.mark.parametrize("experiment", options("experiment"))
def test_experiments_train_two_steps(experiment, speech_folder, tmp_path):
    """At the size that is published, on short crops and few of them."""
    text = (CONF / "experiment" / f"{experiment}.yaml").read_text()
    assert f"experiment={experiment}" in text, "an experiment is headed by its command"
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "batch_size=1"]
    only_fit(composed(f"experiment={experiment}", "logger=csv", "trainer=cpu", *SHORT, *data, f"run_dir={tmp_path}"))


@pytest.mark.parametrize("model", options("model"))
def test_presets_build_at_full_size(model):
    cfg = composed(f"model={model}")
    codec = instantiate(cfg.codec, _convert_="all")
    assert cfg.name == model
    assert codec.sample_rate / codec.hop_length == cfg.frame_rate
    assert count(codec) > 100_000


@pytest.mark.parametrize("model", options("model"))
@pytest.mark.parametrize("quantizer", options("quantizer"))
def test_any_quantizer_goes_with_any_preset(model, quantizer):
    """A preset that sets a value inside a group would break this (another option does not know the value)."""
    cfg = composed(f"model={model}", f"quantizer={quantizer}")
    instantiate(cfg.quantizer, _convert_="all")


def test_canonical_call_has_the_parts_it_names():
    cfg = composed("model=soundstream", "disc=msd+mfd")
    assert set(cfg.disc.members) == {"msd", "mfd"}
    assert cfg.encoder._target_ == cfg.codec.encoder._target_ == "codec.encoders.seanet.SEANetEncoder"
    assert (cfg.sample_rate, cfg.frame_rate, cfg.latent_dim) == (24_000, 75, 256)


def test_saved_configuration_builds_own_classes_only():
    """What a checkpoint carries must pass the check that guards against strangers' checkpoints."""
    for dataset in options("dataset"):
        paths = (
            ["dataset.path=x"] if dataset == "folder" else ["dataset.corpora.folder.path=x"] if dataset == "mix" else []
        )
        names = ["dataset.name=x"] if dataset == "hf" else []
        cfg = composed(f"dataset={dataset}", *paths, *names)
        check_targets(OmegaConf.to_container(cfg.dataset, resolve=True))
        check_targets(OmegaConf.to_container(cfg.codec, resolve=True))


def test_misspelt_options_list_what_is_valid():
    with pytest.raises(HydraException, match="msd\\+mfd"):
        composed("disc=msd+mdf")
    with pytest.raises(HydraException, match="Could not override 'chanels'"):
        composed("chanels=3")


def test_strides_that_do_not_fit_are_refused():
    cfg = composed("model=soundstream", "strides=[2,4,5,5]")
    with pytest.raises(Exception, match="set frame_rate=120, or change the strides"):
        instantiate(cfg.codec, _convert_="all")
