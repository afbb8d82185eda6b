"""task=flow as train.py runs it: every option of every group, extraction of latents, and refusals."""

import math
from pathlib import Path

import pytest
import soundfile
import torch
from hydra.utils import instantiate

import train
from codec.checkpoints.load import load_checkpoint, load_codec
from codec.cli.app import renamed
from codec.data.base import CorpusError
from codec.flow.load import load_flow
from codec.latents.cached import cached_latents
from codec.latents.index import load_index
from codec.utils.errors import InputError
from tests.helpers.codecs import latents_of as extracted
from tests.helpers.codecs import recordings, saved
from tests.helpers.training import composed, options

SMALL = ["flow.network={width: 16, layers: 1, heads: 2, hidden: 16}", "max_seconds=0.9", "batch_size=2", "max_steps=2"]
SMALL += ["val_every=2", "warmup=1", "logger=csv", "trainer=cpu", "trainer.log_every_n_steps=1", "data.workers=0"]
SMALL += ["data.val_clips=2", "~callbacks.progress", "trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Recordings of a codec at 800 Hz, of a second and more, each with text and phones."""
    return recordings(tmp_path_factory.mktemp("flow") / "source")


@pytest.fixture(scope="module")
def rvq(source, tmp_path_factory) -> tuple[Path, Path]:
    """The checkpoint of a codec with an RVQ, and its latents after quantization."""
    folder = tmp_path_factory.mktemp("rvq")
    extracted(saved(folder / "a.ckpt", "rvq_mimi"), source, folder / "latents", "post")
    return folder / "a.ckpt", folder / "latents"


def config(rvq: tuple[Path, Path], run: Path, *overrides: str):
    ckpt, latents = rvq
    return composed("task=flow", f"codec_ckpt={ckpt}", f"latents={latents}", f"run_dir={run}", *SMALL, *overrides)


def dataset(source: Path) -> list[str]:
    return ["dataset=folder", f"dataset.path={source}", "dataset.holdout=0.25"]


SPEAKERS = options("speaker")


@pytest.mark.parametrize(("n", "text"), enumerate(options("text")))
def test_text_and_speaker_options_train_two_steps(n, text, rvq, tmp_path):
    speaker = SPEAKERS[n % len(SPEAKERS)]
    whole = ["max_seconds=2.0"] if "characters" in text else []
    cfg = config(rvq, tmp_path, f"text={text}", f"speaker={speaker}", *whole, "~callbacks.best", "~callbacks.last")
    assert math.isfinite(train.train(cfg))
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    flow, index = load_flow(checkpoint), load_index(rvq[1])
    assert list(flow.condition.members) == [name for name in (text, speaker) if name != "none"]
    assert torch.equal(flow.mean, index.statistics.mean)
    assert flow.fingerprint == index.statistics.fingerprint
    assert load_checkpoint(checkpoint)["config"]["space"]["phones"] == "p4 p3 p2 p1 p0"


@pytest.mark.parametrize("objective", options("flow_objective"))
def test_objectives_train_two_steps(objective, source, rvq, tmp_path):
    trainer, data = train.fit(config(rvq, tmp_path, f"flow_objective={objective}", *dataset(source)))
    assert trainer.global_step == 2
    quantizer = load_codec(rvq[0])[0].quantizer
    for batch in (next(iter(data.train_dataloader())), *data.val_dataloader()) if objective == "ns2" else ():
        mean, std = (value[:, None] for value in (data.corpus.mean, data.corpus.std))
        for latents, codes, frames in zip(batch["latents"], batch["codes"], batch["lengths"], strict=True):
            wanted = quantizer.decode(codes[None, :, :frames])[0]  # the codec's own codes, of these frames
            torch.testing.assert_close(latents[:, :frames] * std + mean, wanted, atol=1e-4, rtol=1e-4)
    assert all(bool(torch.isfinite(value)) for value in trainer.logged_metrics.values())
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} >= {"best.ckpt", "last.ckpt"}
    flow = load_flow(tmp_path / "checkpoints" / "last.ckpt")
    assert not {name for name in flow.state_dict() if "objective" in name}


TEACHERS = {
    "none": [],
    "phones": ["repa.teacher.steps=2", "repa.teacher.corpus={voices: 4, utterances: 1}", "repa.hidden=8"],
    "random": ["repa.hidden=8"],
    "wavlm": ["repa.teacher={bundle: tiny-base, layer: 1, pretrained: false}"],
    "random_wavlm": ["repa.teacher={bundle: tiny-base, layer: 1}"],
}


@pytest.mark.usefixtures("_tiny_wavlm")
@pytest.mark.parametrize("teacher", [name for name in options("repa") if name != "none"])
def test_repa_trains_with_every_teacher(teacher, source, rvq, tmp_path):
    overrides = [f"repa={teacher}", *TEACHERS[teacher], *dataset(source), "~callbacks.best"]
    trainer, _ = train.fit(config(rvq, tmp_path, *overrides))
    assert 0 < float(trainer.logged_metrics["train/alignment"]) < 2
    if teacher == "random":
        load_flow(tmp_path / "checkpoints" / "last.ckpt")  # without the projection
        again = config(rvq, tmp_path, *overrides, "max_steps=3", "ckpt_path=last")
        assert train.fit(again)[0].global_step == 3


def test_other_and_damaged_features_and_codes_are_refused(source, speech_folder, rvq, tmp_path, monkeypatch):
    """Those of other recordings, with other names or with the same names and lengths."""
    other = ["dataset=folder", f"dataset.path={speech_folder}"]
    for option in ("repa=random", "flow_objective=ns2"):
        with pytest.raises(InputError, match=rf"{option.split('=')[0]}.* are not there"):
            train.fit(config(rvq, tmp_path / "other", option, *other))
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path / "cache"))
    for path in source.glob("*.flac"):
        sound, rate = soundfile.read(path)
        soundfile.write(tmp_path / path.name, sound[::-1], rate)
    (tmp_path / "manifest.csv").write_text((source / "manifest.csv").read_text())
    cfg = config(rvq, tmp_path / "run", "flow_objective=ns2", *dataset(tmp_path))
    with pytest.raises(InputError, match="do not give its latents"):
        train.fit(cfg)
    for unit in (tmp_path / "cache" / "codes").rglob("*.safetensors"):
        content = unit.read_bytes()
        unit.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorpusError, match="remove it"):
        train.fit(cfg)


def test_latents_are_extracted_once(source, rvq, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path / "cache"))
    overrides = ["latents=null", *dataset(source), "speaker=prompt"]
    states, times = [], []
    for run in ("one", "two"):
        train.fit(config(rvq, tmp_path / run, *overrides))
        states.append(load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"])
        (folder,) = (tmp_path / "cache" / "latents").iterdir()
        times.append({path.name: path.stat().st_mtime_ns for path in folder.iterdir()})
    assert times[0] == times[1]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert load_index(folder).statistics.kind == "pre"
    corpus = instantiate(composed("dataset=folder", f"dataset.path={source}", "sample_rate=800").dataset)
    with pytest.raises(InputError, match="kind=middle"):
        cached_latents(rvq[0], corpus, "middle")


def test_other_latents_symbols_and_sizes_are_refused(source, rvq, tmp_path):
    run = tmp_path / "run"
    train.fit(config(rvq, run, "text=phones"))
    resume = ["text=phones", f"ckpt_path={run / 'checkpoints' / 'last.ckpt'}"]
    saved(tmp_path / "other.ckpt", "rvq_mimi", seed=1)
    extracted(saved(tmp_path / "same.ckpt", "rvq_mimi"), source, tmp_path / "pre", "pre")
    pre = tmp_path / "same.ckpt", tmp_path / "pre"
    for latents, overrides, sentence in (
        ((tmp_path / "other.ckpt", rvq[1]), [], "of another codec's latents"),
        (pre, resume, "fingerprint, kind differ"),
        (pre, ["flow_objective=ns2"], "sums of quantized vectors"),
        (pre, ["kind=post"], "kind pre, not post"),
        (rvq, [*resume, "flow.network.hidden=24"], "do not fit this model"),
        (rvq, ["codec_ckpt=nowhere.ckpt"], "no checkpoint at nowhere"),
        (rvq, ["max_steps=0"], "max_steps=0"),
        (rvq, ["data.val_clips=0"], "no held-out recording"),
    ):
        with pytest.raises(InputError, match=sentence):
            train.fit(config(latents, tmp_path / "next", *overrides))
    with pytest.raises(InputError, match="codec_ckpt=PATH"):
        train.fit(composed("task=flow", f"run_dir={tmp_path}", *SMALL))


def test_former_names_of_options_are_mapped_to_todays():
    for old, new in {
        "codec=a.ckpt": "codec_ckpt=a.ckpt",
        "flow=small": "flow_size=small",
        "condition=characters+prompt": "text=characters speaker=prompt",
        "condition.members.prompt.blocks=1": "speaker.blocks=1",
        "objective.codes=0.2": "flow_objective.codes=0.2",
        "alignment=repa": "repa=phones",
        "teacher@alignment.teacher=wavlm": "repa=wavlm",
        "flow.network.width=16": None,
        "codec.quantizer.weight=1": None,
    }.items():
        assert renamed(old) == new
