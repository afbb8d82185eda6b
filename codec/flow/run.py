"""Training of a flow model: extraction of missing latents, construction of the task and its data."""

import os
import shlex
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from codec.checkpoints.load import CheckpointError, load_checkpoint, load_codec
from codec.data.vocabulary import characters, phones
from codec.flow.datamodule import LatentData
from codec.flow.model import FlowModel
from codec.flow.task import FlowTask
from codec.latents.cached import cached_codes, cached_features, cached_latents
from codec.latents.extract import TOKENS
from codec.latents.features import FEATURES
from codec.latents.latent_corpus import LatentClips, LatentCorpus
from codec.latents.latent_space import LatentSpace
from codec.latents.paired_features import PairedFeatures
from codec.training.resume import check_fits
from codec.training.setup import check_steps, record, resolved
from codec.utils.distributed import rank_and_world_size
from codec.utils.errors import InputError


def build(cfg: DictConfig, ckpt_path: str | None) -> tuple[FlowTask, LatentData]:
    """Task and data of a training; a checkpoint to resume from is checked against them."""
    check_steps(cfg.max_steps)
    corpus, space = open_latents(cfg)
    cfg.space, cfg.sample_rate = facts(corpus), corpus.sample_rate
    config = resolved(cfg) | {"ckpt_path": ckpt_path}  # plain, without secrets: it is stored in checkpoints
    torch.manual_seed(cfg.seed)  # the same weights whether latents were extracted or found
    flow: FlowModel = instantiate(cfg.flow, _convert_="all")
    flow.mean.copy_(corpus.mean)
    flow.std.copy_(corpus.std)
    flow.objective.set_codebooks(space.codec.quantizer, space.kind, corpus.mean, corpus.std)
    repa = teacher = None
    if cfg.repa:
        options = OmegaConf.to_container(cfg.repa, resolve=True)
        teacher = instantiate(options.pop("teacher"), _convert_="all")
        repa = instantiate(options, channels=teacher.dim)
    task = FlowTask(flow, instantiate(cfg.optim, _convert_="all"), cfg.drop, cfg.drop_context, config, repa)
    record(cfg.run_dir, config, task)
    paired = {}
    if teacher is not None:
        folder = cached_features(
            teacher, instantiate(cfg.dataset, _convert_="all"), corpus.hop_length, **this_rank(cfg)
        )
        paired["features"] = PairedFeatures(folder, FEATURES)
        check_recordings("repa=", paired["features"], corpus.train)
    if flow.objective.needs_codes:
        folder = cached_codes(cfg.codec_ckpt, instantiate(cfg.dataset, _convert_="all"), **this_rank(cfg))
        paired["codes"] = PairedFeatures(folder, TOKENS)
        check_codes(paired["codes"], corpus, space)
    data = instantiate(cfg.data, _partial_=True, _convert_="all")(corpus=corpus, condition=flow.condition, **paired)
    data.setup("fit")
    if not len(data.val_dataloader().dataset):
        raise InputError("no held-out recording can be used for validation: hold out more, or raise max_seconds")
    if ckpt_path:
        check_same_space(config["space"], ckpt_path)
        check_fits(task, ckpt_path)
    return task, data


def report(cfg: DictConfig, trainer: lightning.Trainer, data: LatentData) -> None:
    """Print the paths of a run and its last validation loss, which cannot compare models on different latents."""
    run, loss = Path(cfg.run_dir), float(trainer.callback_metrics.get("val/loss", float("nan")))
    print(f"\nloss {loss:.4f} on held-out spans, after {trainer.global_step} steps\nrun folder  {run}")
    print(f"curves      {shlex.join(['tensorboard', '--logdir', str(run.parent)])}", flush=True)


def open_latents(cfg: DictConfig) -> tuple[LatentCorpus, LatentSpace]:
    """Latents of ``latents=``, or those of ``dataset=``, extracted where they are missing. Raises InputError if no
    codec is named, or the latents are another codec's."""
    if OmegaConf.is_missing(cfg, "codec_ckpt"):
        raise InputError("a flow model is trained on a codec's latents: give its checkpoint, codec_ckpt=PATH")
    folder = cfg.latents
    if folder is None:
        cfg.sample_rate = load_codec(cfg.codec_ckpt)[0].sample_rate
        dataset = instantiate(cfg.dataset, _convert_="all")
        folder = cached_latents(cfg.codec_ckpt, dataset, kind=cfg.kind or "pre", **this_rank(cfg))
    return LatentCorpus(folder), LatentSpace.load(cfg.codec_ckpt, folder, cfg.kind)


def this_rank(cfg: DictConfig) -> dict[str, Any]:
    """Part of a corpus that this process extracts, and its device. Tasks of a SLURM array are separate runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_ARRAY")}
    cuda = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu"
    return {"part": rank_and_world_size(None, None, environment), "device": device}


def facts(corpus: LatentCorpus) -> dict[str, Any]:
    """Facts of the latents that the configuration stores: their format, and the symbols of the training recordings."""
    items = [corpus.train.about(n) for n in range(len(corpus.train))]
    return {
        "channels": corpus.dim,
        "sample_rate": corpus.sample_rate,
        "hop_length": corpus.hop_length,
        "frame_rate": corpus.frame_rate,
        "fingerprint": corpus.fingerprint,
        "kind": corpus.kind,
        "characters": characters(item["text"] for item in items),
        "phones": phones(item["phones"] for item in items),
    }


def check_recordings(option: str, paired: PairedFeatures, clips: LatentClips) -> None:
    """Raises InputError unless every recording of the latents has as many paired frames."""
    files = [clips.about(n)["file"] for n in range(len(clips))]
    frames = zip(files, clips.lengths.tolist(), strict=True)
    if others := [file for file, count in frames if paired.frames(file) != count]:
        raise InputError(
            f"{option} needs the recordings of latents= in dataset=, and {len(others)} of {len(files)} are not there "
            f"({others[0]} is the first): name the dataset from which the latents were extracted"
        )


def check_codes(codes: PairedFeatures, corpus: LatentCorpus, space: LatentSpace) -> None:
    """Raises InputError unless the codes are those of the latents: lengths of all recordings, and values of the first,
    up to a few that differ by the rounding of another device."""
    codes.check()  # a damaged code may exceed its codebook, after which a GPU cannot be used any more
    for clips in (corpus.train, corpus.clips("val")):
        check_recordings("flow_objective=ns2", codes, clips)
    file, latents = (corpus.train[0][part] for part in ("file", "latents"))  # normalised
    with torch.no_grad():
        decoded = space.codec.quantizer.decode(codes.item(file, 0, latents.shape[1])[None])[0]
    if float(((decoded - corpus.mean[:, None]) / corpus.std[:, None] - latents).square().mean()) > 0.1:
        raise InputError(f"the codes of {file} in dataset= do not give its latents in latents=: the audio differs")


def check_same_space(space: dict[str, Any], path: str) -> None:
    """Raises CheckpointError if a checkpoint's model was trained on other latents or symbols."""
    stored = load_checkpoint(path)["config"].get("space")
    stored = stored if isinstance(stored, dict) else {}
    if other := [name for name, value in space.items() if stored.get(name) != value]:
        raise CheckpointError(
            f"{path} cannot be resumed on these latents: their {', '.join(other)} differ from those of its training; "
            "give the same codec_ckpt= and dataset= (or latents=)"
        )
