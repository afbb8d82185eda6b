"""Train a codec: compose the configuration, seed, build, fit, report.

python train.py                       # a small codec on generated speech, in minutes on a CPU
python train.py model=soundstream disc=msd+mfd dataset=folder dataset.path=DIR
python train.py --help                # every option; --info defaults tells where each value comes from
"""

from pathlib import Path

import hydra
import lightning
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.data.base import readable
from codec.data.module import SpeechData
from codec.evaluation import evaluate
from codec.interop.start import start_from
from codec.lineup import find, line_up
from codec.page.write import write_pages
from codec.resume import check_fits, resume_point
from codec.run import check, ending_wandb, join_sweep, one_sentence, precision, record, resolved
from codec.task import CodecTask
from codec.tracking import log_now


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    with one_sentence():
        join_sweep(cfg.trainer.devices)
        return train(cfg)


def train(cfg: DictConfig) -> float:
    """Fit and report -> the mean mel distance of the report, the number that a sweep minimises."""
    with ending_wandb():
        trainer, data = fit(cfg)
        return report(cfg, trainer, data) if trainer.is_global_zero else float("nan")


def fit(cfg: DictConfig) -> tuple[lightning.Trainer, SpeechData]:
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    ckpt_path = resume_point(cfg.ckpt_path, cfg.run_dir)
    config = resolved(cfg) | {"ckpt_path": ckpt_path}  # plain, without secrets: what a checkpoint carries
    parts = {"codec": "codec", "discriminators": "disc", "losses": "loss", "optim": "optim", "distillation": "distill"}
    built = {part: instantiate(cfg[group], _convert_="all") or None for part, group in parts.items()}  # {}: no teacher
    task = CodecTask(**built, adversarial_start=cfg.adversarial_start, codec_start=cfg.codec_start, config=config)
    record(cfg.run_dir, config, task)
    data = instantiate(cfg.data, _convert_="all")
    check(task, data, cfg.max_steps)
    if ckpt_path:
        check_fits(task, ckpt_path)
    elif cfg.init_from:
        start_from(task.codec, cfg.init_from)
    options = {part: list(instantiate(cfg[part], _convert_="all").values()) for part in ("logger", "callbacks")}
    options["precision"] = precision(cfg.trainer.precision)
    options["val_check_interval"] = cfg.val_every * cfg.trainer.accumulate_grad_batches  # Lightning counts batches
    trainer = instantiate(cfg.trainer, _convert_="all", **options)
    trainer.fit(task, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return trainer, data


def report(cfg: DictConfig, trainer: lightning.Trainer, data: SpeechData) -> float:
    run, skipped = Path(cfg.run_dir), []
    one = line_up(find(str(run / "checkpoints" / "last.ckpt")), device=trainer.strategy.root_device)[0]
    system = one.make()  # what the file holds is what gets the score
    clips = readable(data.corpus.clips("test", cfg.report.seconds), skipped, cfg.report.clips)
    options = {"folder": run, "audio": cfg.report.audio, "unread": [data.corpus.bad, skipped]}
    result = evaluate(system, clips, system.sample_rate, one.facts, **options)
    result.write(run)
    (page,) = write_pages(run, [one.entry(result, run, system)], cfg.name)
    log_now("report", result)
    data.ledger.add(skipped)
    print(f"\n{result.table()}\n\n{data.ledger.summary()}\nrun folder  {run}\nlook, hear  {page}")
    print(f"curves      tensorboard --logdir {run.parent}\nevaluate    python eval.py ckpt={run}", flush=True)
    return result.summary()["mel_distance"]["mean"]


if __name__ == "__main__":
    main()
