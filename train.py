"""Train a codec, or a flow model on the latents of one: compose the configuration, seed, build, fit, report.

python train.py                       # a small codec on generated speech, in minutes on a CPU
python train.py model=soundstream disc=msd+mfd dataset=folder dataset.path=DIR
python train.py task=flow codec_ckpt=CKPT dataset=folder dataset.path=DIR
python train.py --help                # every option; --info defaults tells where each value comes from
"""

from typing import Any

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.cli.app import in_sweep, join_sweep, one_sentence, refuse_renamed

# Everything heavy is imported inside the functions: --help and a misspelt option answer at once.


@refuse_renamed
@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    with one_sentence(cfg):
        join_sweep(cfg.trainer.devices)
        return train(cfg)


def train(cfg: DictConfig) -> float:
    """Fit and report -> what a search minimises: ``search_metric``, a value of validation after the last step."""
    from codec.training.setup import chosen, claimed, with_current_classes
    from codec.training.wandb import ending_wandb

    cfg = with_current_classes(cfg)
    with claimed(cfg.run_dir), ending_wandb():
        trainer, data = fit(cfg)
        name = cfg.get("search_metric") or cfg.callbacks.best.monitor  # an older run's configuration has none
        if trainer.global_step % cfg.val_every or name not in trainer.callback_metrics:  # steps since the last one
            trainer.validate(trainer.lightning_module, data.val_dataloader(), verbose=False)
        if trainer.is_global_zero:
            instantiate(cfg.report)(cfg, trainer, data)
        return chosen(name, trainer.callback_metrics, in_sweep())


def fit(cfg: DictConfig) -> tuple[Any, Any]:
    """Train -> the Lightning Trainer and the data module."""
    import lightning

    from codec.training.resume import resume_point
    from codec.training.setup import trainer_options

    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    ckpt_path = resume_point(cfg.ckpt_path, cfg.run_dir)
    task, data = instantiate(cfg.task)(cfg, ckpt_path)
    trainer = instantiate(cfg.trainer, _convert_="all", **trainer_options(cfg))
    trainer.fit(task, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, data


if __name__ == "__main__":
    main()
