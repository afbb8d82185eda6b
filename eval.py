"""Score codecs and baselines on held-out speech: a report of each, and a page on which to compare and hear them.

python eval.py ckpt=runs/.../checkpoints/last.ckpt
python eval.py ckpt=runs/multirun/... baseline=[opus,anchors] dataset=folder dataset.path=DIR dataset.holdout=1.0
"""

import hydra
from omegaconf import DictConfig, OmegaConf

from codec.cli.app import one_sentence, refuse_renamed


@refuse_renamed
@hydra.main(version_base="1.3", config_path="conf", config_name="eval")
def main(cfg: DictConfig) -> None:
    with one_sentence(cfg):
        evaluate(cfg)


def evaluate(cfg: DictConfig) -> None:
    from hydra.utils import instantiate  # imported here: --help and a misspelt option answer at once

    from codec.data.base import CorpusError
    from codec.evaluation.evaluate import check_evaluation
    from codec.evaluation.html.base import check_listening_test
    from codec.evaluation.html.write import write_pages
    from codec.evaluation.metrics.table import choose
    from codec.evaluation.report import overview
    from codec.evaluation.systems import build_systems, corpus_of, find_checkpoints, out_folder
    from codec.training.wandb import log_later
    from codec.utils.device import usable_device

    options, metrics = OmegaConf.to_container(cfg), choose(cfg.metrics)
    check_evaluation(cfg)
    checkpoints = find_checkpoints(options["ckpt"])
    cfg.sample_rate = cfg.sample_rate or max((c.sample_rate for c in checkpoints), default=16_000)
    cfg.device = usable_device(cfg.device)
    baselines = instantiate(cfg.get("baseline", {}), _convert_="all")
    systems = build_systems(checkpoints, options["n_q"], baselines, cfg.ema, cfg.device, cfg.beam)
    if cfg.listening:
        check_listening_test([system.name for system in systems])
    data = instantiate(cfg.dataset, _convert_="all") if "dataset" in cfg else corpus_of(checkpoints, cfg.sample_rate)
    clips = data.clips(cfg.split, cfg.seconds)
    if not len(clips):
        raise CorpusError("the dataset holds nothing out to score: dataset.holdout=1 takes all of it")
    folder, results = out_folder(checkpoints, cfg.out), []
    facts = {"split": cfg.split, "at_most_seconds": cfg.seconds}
    settings = {"metrics": metrics, "workers": cfg.workers, "audio": cfg.audio}
    for system in systems:
        results.append(system.evaluate(data, clips, folder, cfg.clips, facts, **settings))
        print(f"{system.name}\n{results[-1].report.table()}\n", flush=True)
    pages = write_pages(folder, results, cfg.title, cfg.listening)
    print(f"{overview({r.name: r.report for r in results})}\n\nlook and listen  {'  '.join(map(str, pages))}")
    for system, result in zip(systems, results, strict=True):
        if system.run:
            log_later(system.run, f"eval_nq{result.report.facts['n_q']}" if cfg.n_q else "eval", result.report)


if __name__ == "__main__":
    main()
