"""One good file of every kind that a program may be given, and what a program makes of it."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch

from codec.checkpoints.convert.lyra import FILES as LYRA
from codec.checkpoints.convert.lyra import import_lyra
from codec.checkpoints.convert.mimi import FILES, export_mimi, import_mimi
from codec.checkpoints.load import CheckpointError, load_codec
from codec.checkpoints.save import write
from codec.data.audio import AudioError
from codec.data.base import CorpusError, readable
from codec.data.folder import FolderCorpus
from codec.data.shard_corpus import ShardCorpus
from codec.data.work_units import cut
from codec.distillation.teachers.random import RandomTeacher
from codec.evaluation.html import sound
from codec.evaluation.html.base import SystemResult, read_timings
from codec.evaluation.html.ratings import read_ratings
from codec.evaluation.report import Report, ReportError
from codec.evaluation.runs.run_folder import RunError, find_runs, run_names
from codec.evaluation.systems import find_checkpoints
from codec.flow.load import load_with_config, statistics_of
from codec.latents.audio_files import encode_file, read_blocks
from codec.latents.export import LatentExtractor
from codec.latents.extract import TOKENS, Extractor, TokenExtractor, extract, read_token_shard
from codec.latents.features import FEATURES, FeatureExtractor
from codec.latents.latent_corpus import LatentCorpus
from codec.latents.paired_features import PairedFeatures
from codec.latents.shard_file import Layout
from codec.latents.token_file import TokenError, Tokens, load_tokens, save_tokens
from codec.model import Codec
from codec.training.replay import BatchDump, load_batch
from codec.training.resume import resume_point
from tests.helpers.checkpoints import mimi_of, saved
from tests.helpers.flow_checkpoints import saved_flow
from tests.helpers.lyra_files import random_lyra
from tests.helpers.run_folders import ERROR, INFO, report, write_run
from tests.helpers.shards import packed
from tests.helpers.signals import speechlike

RATE = 16_000
CODEC = mimi_of()


class LeftOut(Exception):
    """The program named the file, and went on without it."""


class Kind(NamedTuple):
    """make: writes good files into an empty folder -> the one to be damaged. read: what a program makes of that file;
    may raise ``refusal``, or LeftOut."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    refusal: type[Exception]


def _checkpoint(folder: Path) -> Path:
    saved(folder / "a.ckpt")
    return folder / "a.ckpt"


def _load(path: Path) -> Any:
    return load_codec(path)[0].state_dict(), find_checkpoints(str(path))


def _flow(path: Path) -> Any:
    """What inpainting takes of it."""
    flow, config = load_with_config(path)
    return flow.state_dict(), statistics_of(flow).plain(), config["codec_ckpt"]


def _lyra(folder: Path, name: str) -> Path:
    random_lyra(folder)
    return folder / name


def _import_lyra(path: Path) -> Any:
    return import_lyra(path.parent)[0].state_dict()


def _checkpoints(folder: Path) -> Path:
    """Two, of a run that goes on."""
    content = {"state_dict": {"a": torch.arange(600.0)}, "config": {"codec": {}}, "random": [(1, 2.5, None)]}
    for step in (1, 2):
        write(content | {"global_step": step}, folder / "checkpoints" / "last.ckpt")
    return folder / "checkpoints" / "last.ckpt"


def _go_on(path: Path) -> Any:
    found = resume_point("last", path.parent.parent)
    if found != str(path):
        raise LeftOut(found)
    return torch.load(found, weights_only=True)


def _tokens(folder: Path) -> Path:
    save_tokens(folder / "tokens", Tokens(torch.arange(12).view(2, 6), 55, RATE, 10, "00" * 16))
    return folder / "tokens"


def _unit(folder: Path, encoding: Callable[[Codec], Extractor], name: str) -> Path:
    (folder / "speech").mkdir()
    _speech(folder / "speech", "b.wav", 0.5)
    units = cut(FolderCorpus(folder / "speech", RATE, holdout=0), 10.0)
    extract(encoding(CODEC), units, folder / "units", report=lambda _: None)
    return folder / "units" / name


def _features(codec: Codec) -> Extractor:
    return FeatureExtractor(RandomTeacher(width=4, blocks=1), codec.sample_rate, codec.hop_length)


def _latents(path: Path) -> Any:
    """What training on latents does with them."""
    corpus = LatentCorpus(path.parent)
    items = [corpus.train.item(n) for n in range(len(corpus.train))]
    return corpus.statistics.plain(), items


def _beside(path: Path, layout: Layout) -> Any:
    """What training on latents does with what belongs to their frames."""
    found, files = PairedFeatures(path.parent, layout), ("b.wav", "good.wav")
    if layout is TOKENS:
        found.check()
    if missing := [file for file in files if not found.frames(file)]:
        raise LeftOut(missing[0])
    return [found.item(file, 0, found.frames(file)) for file in files]


def _batch(folder: Path) -> Path:
    random = {"random": torch.get_rng_state()}
    return BatchDump({"wav": torch.zeros(2, 1, 400)}, ["a", "b"], 7, 0, random).save(folder)


def _mimi(folder: Path, layout: str, name: str) -> Path:
    export_mimi(mimi_of(), folder, layout)
    return folder / name


def _import(path: Path) -> Any:
    codec, config = import_mimi(path.parent)
    return codec.state_dict(), config


def _report(folder: Path) -> Path:
    found = report({"stoi": 0.5, "pesq_wb": 2.0}, n_q=4, kbps=6.0, codebook_usage=[0.5], codebook_perplexity=[3.0])
    found.audio = {"a": {"reference": "audio/a.flac", "decoded": "audio/b.flac"}}
    found.failures = [{"clip": "a", "metric": "stoi", "reason": "short"}]
    return found.write(folder)


def _use(path: Path) -> Any:
    """What every page and table does with a report."""
    found = Report.read(path)
    return found.summary(), found.table(), found.markdown()


def _ratings(folder: Path) -> Path:
    rating = {"clip": "a", "conditions": [{"system": "x", "score": 50}, {"system": "reference", "score": 100}]}
    content = {"format": "listening test 1", "listener": "me", "test": "t", "trials": [rating]}
    (folder / "ratings.json").write_text(json.dumps(content))
    return folder / "ratings.json"


def _timing(folder: Path) -> Path:
    (folder / "timing.json").write_text(json.dumps({"x": {"rtf_encode": 0.5, "device": "CPU"}}))
    return folder / "timing.json"


def _run(folder: Path, file: str) -> Path:
    losses = [{"step": step, "train/mel": 1.5} for step in (9, 99)]
    options = {"config": {"a": {"b": [1, 2]}}, "losses": losses, "log": f"{INFO}{ERROR}no room\n"}
    run = write_run(folder / "run", ["lr=1", "disc=none"], {"disc": "none"}, **options)
    if file == ".hydra/config.yaml":
        (run / "config.yaml").unlink()  # which would be read in its place
    return run / file


def _compare(path: Path) -> Any:
    """What a comparison does with a run."""
    runs = find_runs([next(folder for folder in path.parents if folder.name == "run")])
    return run_names(runs), [(run.status, run.seed, run.command, run.curves()) for run in runs]


def _speech(folder: Path, name: str, seconds: float = 1.0, **options: Any) -> Path:
    """One of two recordings."""
    soundfile.write(folder / "good.wav", speechlike(1.0, RATE, 0), RATE)
    soundfile.write(folder / name, speechlike(seconds, RATE, 1), RATE, **options)
    return folder / name


def _listed(folder: Path) -> Path:
    _speech(folder, "b.wav")
    rows = ["file,speaker,text,split,phones", "good.wav,s1,hello,train,h@0.1 e@0.2", "b.wav,s2,there,val,"]
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.csv"


def _shards(folder: Path, name: str) -> Path:
    (folder / "speech").mkdir()
    for n in range(4):
        _speech(folder / "speech", f"{n}.wav")
    return packed(folder / "speech", folder / "shards", holdout=0.3) / name


def _heard(corpus: Any, skipped: list[tuple[str, str]]) -> Any:
    """Clips as validation takes them, crops as training does."""
    clips = [(clip["file"], clip["speaker"], clip["wav"]) for clip in readable(corpus.clips("test"), skipped)]
    crops = corpus.crops(RATE // 4, 0)
    drawn = [crops[n] for n in range(min(crops.slots, 12))]
    skipped += [bad for item in drawn for bad in item["skipped"]]
    return clips, [(item["file"], item["text"], item["phones"], item["wav"]) for item in drawn]


def _listen(path: Path) -> Any:
    """As a run hears a folder; only what comes of this very file."""
    skipped: list[tuple[str, str]] = []
    every = FolderCorpus(path.parent, RATE, holdout=1)
    clips = [clip["wav"] for clip in readable(every.clips("test"), skipped) if clip["file"] == path.name]
    _, drawn = _heard(FolderCorpus(path.parent, RATE, holdout=0), skipped)
    if left := {file: reason for file, reason in [*every.bad, *skipped]}:
        raise LeftOut(left[path.name])
    return clips, [wav for file, *_, wav in drawn if file == path.name]


def _show(path: Path) -> Any:
    found = report({"stoi": 0.5})
    found.audio = {"a": {"decoded": path.name}}
    return sound.read_audio(SystemResult("x", found, path.parent), "a", "decoded")


def _encode(path: Path) -> Any:
    return encode_file(CODEC, path, path.with_name("tokens")), list(read_blocks(path, RATE))


def _listen_listed(path: Path) -> Any:
    corpus = FolderCorpus(path.parent, RATE)
    if corpus.bad:
        raise LeftOut(corpus.bad[0][1])
    return _heard(corpus, [])


def _listen_shards(path: Path) -> Any:
    skipped: list[tuple[str, str]] = []
    heard = _heard(ShardCorpus(path.parent, RATE), skipped)
    if skipped:
        raise LeftOut(skipped[0][1])
    return heard


RUN = [*(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")), "config.yaml"]
RUN += ["csv/metrics.csv", "train.log"]
UNIT = "train-000000.safetensors"
AUDIO: dict[str, dict[str, str]] = {f"a.{suffix}": {} for suffix in ("wav", "flac", "mp3", "ogg")}
AUDIO |= {"a.opus": {"format": "OGG", "subtype": "OPUS"}, "float.wav": {"subtype": "FLOAT"}}
LISTENERS = {"trained on": (_listen, CorpusError), "encoded": (_encode, AudioError), "on a page": (_show, ReportError)}
_tokens_of, _latents_of = (partial(_unit, encoding=each, name=UNIT) for each in (TokenExtractor, LatentExtractor))
_features_of = partial(_unit, encoding=_features, name=UNIT)
_latents_index = partial(_unit, encoding=LatentExtractor, name="index.json")
KINDS = {
    "checkpoint": Kind(_checkpoint, _load, CheckpointError),
    "flow checkpoint": Kind(lambda folder: saved_flow(folder, "characters", "prompt")[0], _flow, CheckpointError),
    "last.ckpt": Kind(_checkpoints, _go_on, CheckpointError),
    "diverged batch": Kind(_batch, load_batch, CheckpointError),
    **{
        f"{layout}: {name}": Kind(partial(_mimi, layout=layout, name=name), _import, CheckpointError)
        for layout, files in FILES.items()
        for name in files[:2]
    },
    **{f"Lyra: {name}": Kind(partial(_lyra, name=name), _import_lyra, CheckpointError) for name in LYRA},
    "tokens": Kind(_tokens, load_tokens, TokenError),
    "unit of tokens": Kind(_tokens_of, lambda path: list(read_token_shard(path)), TokenError),
    "unit of latents": Kind(_latents_of, _latents, CorpusError),
    "latents index": Kind(_latents_index, _latents, CorpusError),
    "codes of latents": Kind(_tokens_of, partial(_beside, layout=TOKENS), CorpusError),
    "unit of features": Kind(_features_of, partial(_beside, layout=FEATURES), CorpusError),
    "manifest": Kind(_listed, _listen_listed, CorpusError),
    **{
        f"shard {name}": Kind(partial(_shards, name=file), _listen_shards, CorpusError)
        for name, file in {"index": "index.json", **{x: f"train-000000.{x}" for x in ("entries", "tar")}}.items()
    },
    "report.json": Kind(_report, _use, ReportError),
    "ratings.json": Kind(_ratings, lambda path: read_ratings([path]), ValueError),
    "timing.json": Kind(_timing, lambda path: read_timings(path.parent), ReportError),
    **{f"run: {file}": Kind(partial(_run, file=file), _compare, RunError) for file in RUN},
    **{
        f"{use}: {name}": Kind(partial(_speech, name=name, **options), read, refusal)
        for use, (read, refusal) in LISTENERS.items()
        for name, options in AUDIO.items()
    },
}
