"""Training a flow model on a codec's latents: the latents, made where they are not yet, the model, and its data."""

import os
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from codec.checkpoints.load import CheckpointError, load_checkpoint, load_codec
from codec.data.vocabulary import characters, phones
from codec.distillation.teachers.base import Teacher
from codec.flow.datamodule import LatentData
from codec.flow.model import FlowModel
from codec.flow.repa import Alignment
from codec.flow.task import FlowTask
from codec.latents.cached import cached_codes, cached_features, cached_latents
from codec.latents.extract import TOKENS
from codec.latents.features import FEATURES
from codec.latents.latent_corpus import LatentClips, LatentCorpus
from codec.latents.latent_space import LatentSpace
from codec.latents.paired_features import PairedFeatures
from codec.quantizers.base import Quantizer
from codec.training.resume import check_fits
from codec.training.setup import check_steps, record, resolved
from codec.utils.distributed import rank_and_world_size
from codec.utils.errors import InputError


def build(cfg: DictConfig, ckpt_path: str | None) -> tuple[FlowTask, LatentData]:
    """-> (task, data module). A checkpoint to resume from is checked against the task."""
    check_steps(cfg.max_steps)
    corpus, space = open_latents(cfg)
    cfg.space, cfg.sample_rate = facts(corpus), corpus.sample_rate
    config = resolved(cfg) | {"ckpt_path": ckpt_path}  # plain, without secrets: what a checkpoint carries
    torch.manual_seed(cfg.seed)  # whether latents were made or found, the model begins alike
    flow: FlowModel = instantiate(cfg.flow, _convert_="all")
    flow.mean.copy_(corpus.mean)
    flow.std.copy_(corpus.std)
    flow.objective.learn_codes(space.codec.quantizer, space.kind, corpus.mean, corpus.std)
    alignment, teacher = aligned(cfg)
    task = FlowTask(flow, instantiate(cfg.optim, _convert_="all"), cfg.drop, cfg.drop_context, config, alignment)
    record(cfg.run_dir, config, task)
    more = beside(cfg, corpus, teacher, flow.objective.wants_codes)
    if "codes" in more:
        check_codes(more["codes"], corpus, space.codec.quantizer)
    parts = {"corpus": corpus, "condition": flow.condition, **more}
    data = instantiate(cfg.data, _partial_=True, _convert_="all")(**parts)
    data.setup("fit")
    if not len(data.val_dataloader().dataset):
        raise InputError("nothing is held out for validation that can be used: hold out more, or raise max_seconds")
    if ckpt_path:
        check_same_space(config["space"], ckpt_path)
        check_fits(task, ckpt_path)
    return task, data


def report(cfg: DictConfig, trainer: lightning.Trainer, data: LatentData) -> float:
    """Say where things are -> the last validation loss, the number that a sweep minimises. It is no score: losses of
    flow models on other latents cannot be compared with it."""
    run, loss = Path(cfg.run_dir), float(trainer.callback_metrics.get("val/loss", float("nan")))
    print(f"\nloss {loss:.4f} on held-out spans, after {trainer.global_step} steps\nrun folder  {run}")
    print(f"curves      tensorboard --logdir {run.parent}", flush=True)
    return loss


def open_latents(cfg: DictConfig) -> tuple[LatentCorpus, LatentSpace]:
    """The latents that the configuration names, or those of its dataset, and their space.

    Raises:
        InputError: if no codec is named, or the latents are another's.
    """
    if OmegaConf.is_missing(cfg, "codec"):
        raise InputError("a flow model is trained on a codec's latents: name its checkpoint, codec=PATH")
    folder = cfg.latents
    if folder is None:
        cfg.sample_rate = load_codec(cfg.codec)[0].sample_rate
        options = {"kind": cfg.kind or "pre", "part": my_share(), "device": device_for(cfg.trainer.accelerator)}
        folder = cached_latents(cfg.codec, instantiate(cfg.dataset, _convert_="all"), **options)
    return LatentCorpus(folder), LatentSpace.load(cfg.codec, folder, cfg.kind)


def aligned(cfg: DictConfig) -> tuple[Alignment | None, Teacher | None]:
    """What draws hidden states towards a teacher's features, and the teacher."""
    if not cfg.alignment:
        return None, None
    options = OmegaConf.to_container(cfg.alignment, resolve=True)
    teacher = instantiate(options.pop("teacher"), _convert_="all")
    return instantiate(options, channels=teacher.dim), teacher


def beside(cfg: DictConfig, corpus: LatentCorpus, teacher: Teacher | None, codes: bool) -> dict[str, PairedFeatures]:
    """What a teacher hears in the recordings of ``corpus`` for training, and the codes of all, where they are wanted.

    Raises:
        CorpusError: if what is kept of them is damaged.
        InputError: if the dataset has not all of these recordings.
    """
    if teacher is None and not codes:
        return {}
    dataset = instantiate(cfg.dataset, _convert_="all")
    how = {"part": my_share(), "device": device_for(cfg.trainer.accelerator)}
    found = {}
    if teacher is not None:
        found["features"] = PairedFeatures(cached_features(teacher, dataset, corpus.hop_length, **how), FEATURES)
        check_all_there("alignment= hears", found["features"], corpus.train)
    if codes:
        found["codes"] = PairedFeatures(cached_codes(cfg.codec, dataset, **how), TOKENS)
        found["codes"].check()  # a damaged code may be none of its codebook's, which ends a GPU's work for good
        for clips in (corpus.train, corpus.clips("val")):
            check_all_there("objective=ns2 encodes", found["codes"], clips)
    return found


def check_all_there(who: str, beside: PairedFeatures, clips: LatentClips) -> None:
    """Raises InputError if something has not all recordings of the latents, or others by their names."""
    files = [clips.about(n)["file"] for n in range(len(clips))]
    frames = zip(files, clips.lengths.tolist(), strict=True)
    if others := [file for file, count in frames if beside.frames(file) != count]:
        raise InputError(
            f"{who} the recordings of latents= in dataset=, and {len(others)} of {len(files)} are not there "
            f"({others[0]} is the first): name the dataset that they are of"
        )


def check_codes(codes: PairedFeatures, corpus: LatentCorpus, quantizer: Quantizer) -> None:
    """Raises InputError if the codes of the first recording do not give its latents (a few may differ: another device
    rounds otherwise)."""
    file, latents = (corpus.train[0][part] for part in ("file", "latents"))  # normalised
    with torch.no_grad():
        decoded = quantizer.decode(codes.item(file, 0, latents.shape[1])[None])[0]
    if float(((decoded - corpus.mean[:, None]) / corpus.std[:, None] - latents).square().mean()) > 0.1:
        raise InputError(f"the codes of {file} in dataset= do not give its latents in latents=: it is another sound")


def facts(corpus: LatentCorpus) -> dict[str, Any]:
    """What the configuration keeps of the latents: what they are, and the symbols that training will meet."""
    about = [corpus.train.about(n) for n in range(len(corpus.train))]
    return {
        "channels": corpus.dim,
        "sample_rate": corpus.sample_rate,
        "hop_length": corpus.hop_length,
        "frame_rate": corpus.frame_rate,
        "fingerprint": corpus.fingerprint,
        "kind": corpus.kind,
        "characters": characters(item["text"] for item in about),
        "phones": phones(item["phones"] for item in about),
    }


def check_same_space(space: dict[str, Any], path: str) -> None:
    """Raises CheckpointError if a checkpoint's model was trained on other latents, or with other symbols."""
    theirs = load_checkpoint(path)["config"].get("space")
    theirs = theirs if isinstance(theirs, dict) else {}
    if other := [name for name, value in space.items() if theirs.get(name) != value]:
        raise CheckpointError(
            f"{path} cannot go on with these latents, as their {', '.join(other)} differ from what it was trained on: "
            "give the same codec= and dataset= (or latents=)"
        )


def my_share() -> tuple[int, int]:
    """(rank, world) among the processes of this run; the tasks of a SLURM array are runs of their own."""
    return rank_and_world_size(
        None, None, {name: value for name, value in os.environ.items() if not name.startswith("SLURM_ARRAY")}
    )


def device_for(accelerator: str) -> str:
    """On which latents are made."""
    usable = accelerator != "cpu" and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if usable else "cpu"
