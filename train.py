"""Train a codec: compose the configuration, seed, build, fit, report.

    python train.py                                             # a small SoundStream on generated speech, minutes on a CPU
    python train.py model=soundstream disc=msd+mfd dataset=folder dataset.path=DIR
    python train.py --help                                      # every option; --info defaults: where each comes from
"""

import logging
import sys
from pathlib import Path

import hydra
import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from codec.checkpoint import CheckpointError, load_checkpoint, load_codec
from codec.data.base import CorpusError, readable
from codec.data.module import SpeechData
from codec.evaluation import evaluate_codec
from codec.run import precision, record
from codec.task import CodecTask

log = logging.getLogger("train")


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    try:
        return train(cfg)
    except (CorpusError, CheckpointError) as error:
        sys.exit(f"error: {error}")


def train(cfg: DictConfig) -> float:
    """-> the mean mel distance of the final report, the number that a sweep minimises."""
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")
    config = OmegaConf.to_container(cfg, resolve=True)  # plain and resolved: what a checkpoint carries
    run = Path(cfg.run_dir)

    parts = {"codec": cfg.codec, "discriminators": cfg.disc, "losses": cfg.loss, "optim": cfg.optim}
    built = {name: instantiate(part, _convert_="all") for name, part in parts.items()}
    task = CodecTask(**built, adversarial_start=cfg.adversarial_start, config=config)
    for name, part in record(run, config, task).items():
        log.info("%-22s %12s parameters  %s", name, f"{part['parameters']:,}", part["class"])

    data = instantiate(cfg.data, _convert_="all")
    loggers = list(instantiate(cfg.logger, _convert_="all").values())
    callbacks = list(instantiate(cfg.callbacks, _convert_="all").values())
    options = {"logger": loggers, "callbacks": callbacks, "precision": precision(cfg.trainer.precision)}
    trainer = instantiate(cfg.trainer, _convert_="all", **options)
    if cfg.ckpt_path:
        load_checkpoint(cfg.ckpt_path)  # one sentence now rather than a trace from inside the trainer
    trainer.fit(task, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
    if not trainer.is_global_zero:
        return float("nan")
    return report(cfg, data, trainer.strategy.root_device)


def report(cfg: DictConfig, data: SpeechData, device: torch.device) -> float:
    run = Path(cfg.run_dir)
    last = run / "checkpoints" / "last.ckpt"
    codec, config = load_codec(last)  # what the file holds is what gets the score
    skipped: list[tuple[str, str]] = []
    clips = readable(data.corpus.clips("test", cfg.report.seconds), skipped, cfg.report.clips)
    audio = {"audio_folder": run / "audio", "audio_count": cfg.report.audio}
    result = evaluate_codec(codec, clips, facts={"step": config["step"]}, device=device, **audio)
    result.write(run)
    data.ledger.add(skipped)
    print(f"\n{result.table()}\n\n{data.ledger.summary()}\nrun folder  {run}\nlisten      {run / 'audio'}")
    print(f"look        tensorboard --logdir {run.parent}\nevaluate    python eval.py ckpt={last}", flush=True)
    return result.summary()["mel_distance"]["mean"]


if __name__ == "__main__":
    main()
