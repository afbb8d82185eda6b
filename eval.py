"""Score a checkpoint by PESQ, STOI, SI-SDR, spectral distances, pitch and loudness, per clip and in total.

python eval.py ckpt=runs/.../checkpoints/last.ckpt
python eval.py ckpt=... dataset=folder dataset.path=DIR dataset.holdout=1.0 n_q=4
"""

from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.checkpoint import CheckpointError, build, load_codec
from codec.data.base import CorpusError, readable
from codec.evaluation import evaluate as score
from codec.metrics.base import MissingError
from codec.metrics.table import choose
from codec.run import InputError, one_sentence
from codec.systems.codec import CodecSystem


@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(cfg: DictConfig) -> None:
    with one_sentence():
        evaluate(cfg)


def evaluate(cfg: DictConfig) -> None:
    try:
        metrics = choose(cfg.metrics)
    except (ValueError, MissingError) as error:
        raise InputError(f"metrics: {error}") from error
    codec, config = load_codec(cfg.ckpt, cfg.ema)
    try:
        n_q = codec.quantizer.check_n_q(cfg.n_q)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    cfg.sample_rate = codec.sample_rate
    if "dataset" not in cfg and "dataset" not in config:  # an imported codec
        raise CorpusError("this checkpoint was trained on no dataset of ours: give dataset=folder dataset.path=DIR")
    corpus = instantiate(cfg.dataset, _convert_="all") if "dataset" in cfg else build(config["dataset"])
    device = cfg.device if cfg.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    held_out = corpus.clips(cfg.split, cfg.seconds)
    if not len(held_out):
        raise CorpusError("the dataset holds nothing out to score: dataset.holdout=1 takes all of it")
    skipped: list[tuple[str, str]] = []
    clips = readable(held_out, skipped, cfg.clips)

    stem = f"eval_{Path(cfg.ckpt).stem}_nq{n_q}" if n_q else f"eval_{Path(cfg.ckpt).stem}"
    folder = Path(cfg.out or Path(cfg.ckpt).parent)
    facts = {"checkpoint": Path(cfg.ckpt).name, "step": config["step"], "split": cfg.split}
    options = {"metrics": metrics, "workers": cfg.workers, "folder": folder, "audio": cfg.audio}
    report = score(CodecSystem(codec, n_q or None, device), clips, codec.sample_rate, facts, stem, **options)
    for file, reason in [*corpus.bad, *skipped]:
        report.failures.append({"clip": file, "metric": "file", "reason": reason})
    path = report.write(folder, stem)
    print(f"{report.table()}\n\nwritten to {path} (.md, .csv; audio in {folder / 'audio'})")


if __name__ == "__main__":
    main()
