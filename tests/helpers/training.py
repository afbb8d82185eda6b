"""A small codec's training: compositions of conf/ that take seconds, and a task on synthetic tones."""

from pathlib import Path

import lightning
import torch
from hydra import compose, initialize
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, Dataset

from codec.discriminators.base import DiscriminatorSet
from codec.discriminators.msd import MultiScale
from codec.discriminators.msstft import MultiScaleSTFT
from codec.losses.adversarial import FeatureMatching, Hinge
from codec.losses.balancer import Weighted
from codec.losses.base import Losses
from codec.losses.mel import MultiScaleMel
from codec.losses.waveform import L1
from codec.training.codec_task import CodecTask
from codec.training.optim import AdversarialOptimizer, Cosine, ParameterGroup
from tests.helpers.parts import small_codec, tone_batch

CONF = Path(__file__).parents[2] / "conf"
# A few thousand parameters, half a second of audio, no files but the checkpoint.
TINY = ["channels=4", "latent_dim=16", "batch_size=2", "quantizer.codebook_size=16", "quantizer.kmeans_iters=2"]
SHORT = ["segment=0.52", "max_steps=2", "val_every=2", "data.workers=0", "data.val_clips=1", "data.val_seconds=0.6"]
SHORT += ["report.clips=1", "report.seconds=0.6", "report.audio=1", "trainer.log_every_n_steps=1"]
SHORT += ["callbacks.validation.metrics=[mel_distance]", "callbacks.validation.shown=0"]
SHORT += ["~callbacks.progress", "trainer.enable_progress_bar=false"]
CHOICES = {"encoder": "seanet_small", "decoder": "seanet_small", "disc": "none", "logger": "csv", "trainer": "cpu"}
SMALL_CODEC = [*TINY[:3], "encoder=seanet_small", "decoder=seanet_small", "trainer=cpu"]
# A run of train.py with checkpoints and a report.
SMALL_RUN = [*TINY, *(f"{k}={v}" for k, v in CHOICES.items() if k != "disc"), "segment=0.36", "val_every=2"]
SMALL_RUN += ["data.workers=0", "data.val_clips=2", "data.val_seconds=1.0", "report.clips=2", "report.seconds=1.0"]
SMALL_RUN += ["callbacks.validation.metrics=[mel_distance]", "callbacks.validation.shown=0"]
SMALL_RUN += ["trainer.log_every_n_steps=1"]
# Mimi's structure at a hundredth of its size.
MIMI = ["channels=4", "latent_dim=32", "transformer_layers=2", "transformer_hidden=64"]
MIMI += ["quantizer.codebook_size=32", "quantizer.codebook_dim=8"]
# Discriminators of tens of millions of parameters, at a width that shows the same wiring.
NARROW = {
    "msd": ["msd_width=4", "disc.members.msd.scales=1"],
    "mfd": ["mfd_hidden=[32,32,32,32,32,32]"],
    "mpd": ["disc.members.mpd.widths=[4,4,8,8,8]"],
    "mrd": ["disc.members.mrd.width=4"],
    "msstft": ["disc.members.msstft.width=4"],
}
T = 1024  # samples of a tone


def options(group: str) -> list[str]:
    """The names of a group's options in conf/."""
    return sorted(p.stem for p in (CONF / group).glob("[!_]*.yaml"))


def composed(*overrides: str, hydra: bool = False) -> DictConfig:
    """The configuration of train.py; with Hydra's own on demand."""
    with initialize(version_base="1.3", config_path="../../conf"):
        return compose("train", overrides=list(overrides), return_hydra_config=hydra)


def short(folder: Path, run: Path, *overrides: str, **choices: str) -> DictConfig:
    """A configuration that trains two steps on ``folder``; ``choices`` are options of groups."""
    groups = [f"{group}={option}" for group, option in {**CHOICES, **choices}.items()]
    data = ["dataset=folder", f"dataset.path={folder}", "dataset.holdout=0.25", f"run_dir={run}"]
    return composed(*groups, *SHORT, *data, *overrides)


def narrow(members) -> list[str]:
    """Overrides that make these discriminators small."""
    return [o for name in members for o in NARROW.get(name, [])]


def only_fit(cfg: DictConfig) -> None:
    """Train two steps and validate, without checkpoints and the report."""
    import train

    del cfg.callbacks.best, cfg.callbacks.last, cfg.callbacks.last_step
    OmegaConf.update(cfg, "trainer.enable_checkpointing", False, force_add=True)
    trainer, _ = train.fit(cfg)
    assert trainer.global_step == 2
    assert all(bool(torch.isfinite(v)) for v in trainer.logged_metrics.values())
    assert "val/mel_distance" in trainer.logged_metrics


def small_task(
    combine=None, adversarial=None, start=0, members=("msd", "msstft"), codec=None, freeze=(), **changes
) -> CodecTask:
    """A codec, by default at 800 Hz, with small discriminators; ``start`` is the step at which these begin."""
    torch.manual_seed(1)
    available = {
        "msd": lambda: MultiScale(scales=2, width=4),
        "msstft": lambda: MultiScaleSTFT(windows=[64, 32], width=4),
    }
    terms = {"mel": MultiScaleMel(800, windows=[64, 128], mels=8), "l1": L1()}
    weights = {"mel": 2.0, "l1": 0.5, "adversarial": 1.0, "feature": 3.0}
    losses = Losses(terms, adversarial or Hinge(), FeatureMatching(), weights, combine or Weighted(), commitment=0.7)
    side = ParameterGroup(1e-3, (0.5, 0.9))
    discriminators = DiscriminatorSet({name: available[name]() for name in members})
    codec = codec or small_codec(**changes)
    return CodecTask(codec, discriminators, losses, AdversarialOptimizer(side, side, Cosine()), start, freeze=freeze)


class Tones(Dataset):
    """Synthetic recordings ``[1, samples]``; item n depends on n alone."""

    def __init__(self, length: int = 10_000, samples: int = T):
        self.length, self.samples = length, samples

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, n: int) -> dict:
        return {"wav": tone_batch(1, self.samples, seed=n)[0], "file": f"tone{n}"}


def loader(length: int = 10_000, batch: int = 4) -> DataLoader:
    return DataLoader(Tones(length), batch)


def fit(task, steps, folder=None, callbacks=(), val=None, train=None, **options) -> lightning.Trainer:
    """Train on tones (or on ``train``), without logger, bar and checkpoints unless ``options`` ask for them."""
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
    options = quiet | dict(accelerator="cpu", max_steps=steps, log_every_n_steps=1, num_sanity_val_steps=0) | options
    trainer = lightning.Trainer(callbacks=list(callbacks), default_root_dir=folder, **options)
    trainer.fit(task, train or loader(), val)
    return trainer
