"""Score codecs and baselines on held-out speech: a report of each, and a page on which to compare and hear them.

python eval.py ckpt=runs/.../checkpoints/last.ckpt
python eval.py ckpt=runs/multirun/... baseline=[opus,anchors] dataset=folder dataset.path=DIR dataset.holdout=1.0
python eval.py ckpt=[a.ckpt,b.ckpt] n_q=curve
"""

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from codec.cli.app import one_sentence, refuse_renamed

# Everything heavy is imported inside the functions: --help and a misspelt option answer at once.


@refuse_renamed
@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(cfg: DictConfig) -> None:
    with one_sentence():
        evaluate(cfg)


def evaluate(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    from codec.data.base import CorpusError, readable
    from codec.evaluation.evaluate import check_evaluation, file_name
    from codec.evaluation.evaluate import evaluate as score
    from codec.evaluation.html.listening import MOST, rated
    from codec.evaluation.html.write import write_pages
    from codec.evaluation.metrics.table import choose
    from codec.evaluation.report import overview
    from codec.evaluation.systems import build_systems, corpus_of, find, out_folder
    from codec.training.wandb import log_later
    from codec.utils.device import usable_device
    from codec.utils.errors import InputError

    options, metrics = OmegaConf.to_container(cfg), choose(cfg.metrics)
    check_evaluation(cfg)
    checkpoints = find(options["ckpt"])
    cfg.sample_rate = cfg.sample_rate or max((c.sample_rate for c in checkpoints), default=16_000)
    cfg.device = usable_device(cfg.device)
    baselines = instantiate(cfg.get("baseline", {}), _convert_="all")
    systems = build_systems(checkpoints, options["n_q"], baselines, cfg.ema, cfg.device)
    heard = rated([one.name for one in systems])
    if cfg.listening and not 0 < len(heard) <= MOST - 2:
        raise InputError(f"listening: a trial has room for 1 to {MOST - 2} systems, not for {len(heard)}")
    data = instantiate(cfg.dataset, _convert_="all") if "dataset" in cfg else corpus_of(checkpoints, cfg.sample_rate)
    clips = data.clips(cfg.split, cfg.seconds)
    if not len(clips):
        raise CorpusError("the dataset holds nothing out to score: dataset.holdout=1 takes all of it")

    folder = Path(cfg.out or out_folder(checkpoints))
    how = {"metrics": metrics, "workers": cfg.workers, "folder": folder, "audio": cfg.audio}
    entries = []
    for one in systems:
        skipped: list[tuple[str, str]] = []
        facts = {**one.facts, **one.where(folder), "split": cfg.split, "at_most_seconds": cfg.seconds}
        system, heard = one.make(), readable(clips, skipped, cfg.clips)
        report = score(system, heard, data.sample_rate, facts, one.name, unread=[data.bad, skipped], **how)
        report.write(folder, file_name(one.name))
        entries.append(one.entry(report, folder, system))
        print(f"{one.name}\n{report.table()}\n", flush=True)

    pages = write_pages(folder, entries, cfg.title, cfg.listening)
    print(f"{overview({e.name: e.report for e in entries})}\n\nlook and listen  {'  '.join(map(str, pages))}")
    for one, entry in zip(systems, entries, strict=True):
        if one.run:
            log_later(one.run, f"eval_nq{entry.report.facts['n_q']}" if cfg.n_q else "eval", entry.report)


if __name__ == "__main__":
    main()
