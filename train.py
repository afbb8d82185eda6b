"""Train a codec, or a flow model on the latents of one: compose the configuration, seed, build, fit, report.

python train.py                       # a small codec on generated speech, in minutes on a CPU
python train.py model=soundstream disc=msd+mfd dataset=folder dataset.path=DIR
python train.py task=flow codec=CKPT dataset=folder dataset.path=DIR
python train.py --help                # every option; --info defaults tells where each value comes from
"""

from types import ModuleType

import hydra
import lightning
from hydra.utils import get_object, instantiate
from lightning import LightningDataModule
from omegaconf import DictConfig

from codec.cli.app import join_sweep, one_sentence
from codec.training.resume import resume_point
from codec.training.setup import precision
from codec.training.wandb import ending_wandb


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    with one_sentence():
        join_sweep(cfg.trainer.devices)
        return train(cfg)


def train(cfg: DictConfig) -> float:
    """Fit and report -> the number that a sweep minimises: a codec's mean mel distance, a flow model's loss."""
    with ending_wandb():
        trainer, data = fit(cfg)
        return job(cfg).report(cfg, trainer, data) if trainer.is_global_zero else float("nan")


def fit(cfg: DictConfig) -> tuple[lightning.Trainer, LightningDataModule]:
    """Train what the job of the task builds."""
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    ckpt_path = resume_point(cfg.ckpt_path, cfg.run_dir)
    task, data = job(cfg).build(cfg, ckpt_path)
    options = {part: list(instantiate(cfg[part], _convert_="all").values()) for part in ("logger", "callbacks")}
    options["precision"] = precision(cfg.trainer.precision)
    options["val_check_interval"] = cfg.val_every * cfg.trainer.accumulate_grad_batches  # Lightning counts batches
    trainer = instantiate(cfg.trainer, _convert_="all", **options)
    trainer.fit(task, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, data


def job(cfg: DictConfig) -> ModuleType:
    """What builds the task and reports on it, of codec/training/. A run's own configuration may be older than tasks."""
    return get_object(cfg.get("task", "codec.training.run"))


if __name__ == "__main__":
    main()
