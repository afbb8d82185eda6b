"""Training a codec: build task and data from the configuration, and evaluate the last checkpoint."""

import shlex
from pathlib import Path

import lightning
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.checkpoints import safe_instantiate
from codec.checkpoints.convert.init_from import start_from
from codec.data.base import Corpus, readable
from codec.data.codec_datamodule import SpeechData
from codec.data.folder import FolderCorpus
from codec.data.vocabulary import phones
from codec.evaluation.evaluate import evaluate
from codec.evaluation.html.write import write_pages
from codec.evaluation.systems import build_systems, find_checkpoints
from codec.training.codec_task import PARTS, STARTS, CodecTask
from codec.training.resume import check_fits, older_parts
from codec.training.setup import check, record, resolved
from codec.training.wandb import log_now
from codec.utils.errors import InputError
from codec.utils.quoting import option


def build(cfg: DictConfig, ckpt_path: str | None) -> tuple[CodecTask, SpeechData]:
    """Build the codec task and its data; check a checkpoint to resume from against the task."""
    if cfg.distill.get("vocabulary", "") is None:
        cfg.distill.vocabulary = phones_of(instantiate(cfg.dataset, _convert_="all"))
    config = resolved(cfg) | {"ckpt_path": ckpt_path}  # plain, without secrets: it is stored in checkpoints
    older = older_parts(ckpt_path, config, PARTS.values()) if ckpt_path else {}
    config |= older
    groups = {group: safe_instantiate.build(part, safe_instantiate.STEP) for group, part in older.items()}
    groups |= {group: instantiate(cfg[group], _convert_="all") for group in PARTS.values() if group not in older}
    built = {part: groups[group] or None for part, group in PARTS.items()}  # {}: no teacher
    steps = {name: cfg[name] for name in STARTS}
    task = CodecTask(**built, **steps, freeze=config.get("freeze", ()), config=config)
    record(cfg.run_dir, config, task)
    data = instantiate(cfg.data, _convert_="all")
    check(task, data, cfg.max_steps)
    if ckpt_path:
        check_fits(task, ckpt_path)
    elif cfg.init_from:
        start_from(task.codec, cfg.init_from, task.frozen)
    return task, data


def phones_of(corpus: Corpus) -> str:
    """All symbols in the manifest of a corpus, separated by spaces. Raises InputError if it has no manifest."""
    if not isinstance(corpus, FolderCorpus):
        raise InputError(
            f"the phones of a {type(corpus).__name__} cannot be collected before training: name them all, as in "
            'distill.vocabulary="a b c"'
        )
    timed = (phone.rpartition("@") for row in corpus.rows for phone in row.phones.split())
    return phones([((symbol, float(start)) for symbol, _, start in timed)])


def report(
    cfg: DictConfig, trainer: lightning.Trainer, data: SpeechData, clips: int, seconds: float, audio: int
) -> None:
    """Evaluate the last checkpoint on recordings held out for the test, which nothing is chosen by.

    Scores at most ``clips`` recordings of at most ``seconds`` each, and writes ``audio`` pairs of wav files.
    """
    run, skipped = Path(cfg.run_dir), []
    checkpoints = find_checkpoints(str(run / "checkpoints" / "last.ckpt"))
    one = build_systems(checkpoints, device=trainer.strategy.root_device)[0]
    system = one.make()  # evaluates the saved file, not the weights in memory
    recordings = readable(data.corpus.clips("test", seconds), skipped, clips)
    options = {"folder": run, "audio": audio, "unread": [data.corpus.bad, skipped]}
    result = evaluate(system, recordings, system.sample_rate, one.facts | data.corpus.facts(), **options)
    result.write(run)
    (page,) = write_pages(run, [one.result(result, run, system)], cfg.name)
    log_now("report", result)
    data.read_errors.add(skipped)
    print(f"\n{result.table()}\n\n{data.read_errors.summary()}\nrun folder  {run}\nlook, hear  {page}")
    print(f"curves      {shlex.join(['tensorboard', '--logdir', str(run.parent)])}")
    print(f"evaluate    python eval.py {option('ckpt', run)}", flush=True)
