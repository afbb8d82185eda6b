"""task=flow as train.py runs it: every option of every group, latents made and found, and what is refused."""

from pathlib import Path

import pytest
import soundfile
import torch
from hydra.errors import HydraException
from hydra.utils import instantiate

import train
from codec.checkpoints.load import CheckpointError, load_checkpoint, load_codec
from codec.data.base import CorpusError
from codec.flow.load import load_flow
from codec.latents.cached import cached_latents
from codec.latents.index import load_index
from codec.utils.errors import InputError
from tests.helpers.codecs import latents_of as made_by_hand
from tests.helpers.codecs import recordings, saved
from tests.helpers.parts import count
from tests.helpers.training import CONF, composed, options

SMALL = ["flow.network={width: 16, layers: 1, heads: 2, hidden: 16}", "max_seconds=0.9", "batch_size=2", "max_steps=2"]
SMALL += ["val_every=2", "warmup=1", "logger=csv", "trainer=cpu", "trainer.log_every_n_steps=1", "data.workers=0"]
SMALL += ["data.val_clips=2", "~callbacks.progress", "trainer.enable_progress_bar=false"]
SPACE = {"channels": 4, "sample_rate": 800, "hop_length": 8, "frame_rate": 100.0, "fingerprint": "f", "kind": "pre"}
SPACE |= {"characters": "abc", "phones": "a b c"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Recordings of a codec at 800 Hz, of a second and more, each with text and phones."""
    return recordings(tmp_path_factory.mktemp("flow") / "source")


@pytest.fixture(scope="module")
def rvq(source, tmp_path_factory) -> tuple[Path, Path]:
    """The checkpoint of a codec with an RVQ, and its latents after quantization."""
    folder = tmp_path_factory.mktemp("rvq")
    made_by_hand(saved(folder / "a.ckpt", "rvq_mimi"), source, folder / "latents", "post")
    return folder / "a.ckpt", folder / "latents"


def config(rvq: tuple[Path, Path], run: Path, *overrides: str):
    ckpt, latents = rvq
    return composed("task=flow", f"codec={ckpt}", f"latents={latents}", f"run_dir={run}", *SMALL, *overrides)


def heard(source: Path) -> list[str]:
    """The dataset that the latents are of."""
    return ["dataset=folder", f"dataset.path={source}", "dataset.holdout=0.25"]


def whole(option: str) -> list[str]:
    return ["max_seconds=2.0"] if "characters" in option else []


@pytest.mark.parametrize("condition", options("condition"))
def test_conditions_train_two_steps(condition, rvq, tmp_path):
    cfg = config(rvq, tmp_path, f"condition={condition}", *whole(condition), "~callbacks.best", "~callbacks.last")
    assert set(cfg.condition.members) == set(condition.replace("none", "").split("+")) - {""}
    loss = train.train(cfg)
    assert loss == loss
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    flow, index = load_flow(checkpoint), load_index(rvq[1])
    assert torch.equal(flow.mean, index.statistics.mean)
    assert flow.fingerprint == index.statistics.fingerprint
    assert load_checkpoint(checkpoint)["config"]["space"]["phones"] == "p4 p3 p2 p1 p0"


@pytest.mark.parametrize("objective", options("objective"))
def test_objectives_train_two_steps(objective, source, rvq, tmp_path):
    cfg = config(rvq, tmp_path, f"objective={objective}", *heard(source))
    trainer, data = train.fit(cfg)
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
    "phones": ["alignment.teacher.steps=2", "alignment.teacher.corpus={voices: 4, utterances: 1}"],
    "wavlm": ["alignment.teacher={bundle: tiny-base, layer: 1, pretrained: false}"],
    "random_wavlm": ["alignment.teacher={bundle: tiny-base, layer: 1}"],
}


@pytest.mark.usefixtures("_tiny_wavlm")
@pytest.mark.parametrize("teacher", options("teacher"))
def test_alignment_with_every_teacher(teacher, source, rvq, tmp_path):
    chosen = ["alignment=repa", f"teacher@alignment.teacher={teacher}", *TEACHERS.get(teacher, [])]
    data = [*heard(source), "alignment.hidden=8"]
    cfg = config(rvq, tmp_path, *chosen, *data, "condition=phones", "~callbacks.best")
    trainer, _ = train.fit(cfg)
    assert 0 < float(trainer.logged_metrics["train/alignment"]) < 2
    if teacher == "random":
        load_flow(tmp_path / "checkpoints" / "last.ckpt")  # as if nobody had been aligned
        again = [*chosen, *data, "condition=phones", "max_steps=3", "ckpt_path=last"]
        assert train.fit(config(rvq, tmp_path, *again))[0].global_step == 3


def test_a_teacher_wants_to_hear_the_recordings_of_the_latents(speech_folder, rvq, tmp_path):
    other = ["dataset=folder", f"dataset.path={speech_folder}"]
    with pytest.raises(InputError, match=r"(9|10|11|12) of \1 are not there"):
        train.fit(config(rvq, tmp_path, "alignment=repa", "teacher@alignment.teacher=random", *other))
    with pytest.raises(InputError, match=r"objective=ns2 encodes .* in dataset=, and (9|10|11|12) of \1 are not there"):
        train.fit(config(rvq, tmp_path, "objective=ns2", *other))


def test_codes_are_those_of_the_latents(source, rvq, tmp_path, monkeypatch):
    """Recordings of the same names and lengths may be others, and what was kept may be damaged."""
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path / "cache"))
    for path in source.glob("*.flac"):
        sound, rate = soundfile.read(path)
        soundfile.write(tmp_path / path.name, sound[::-1], rate)
    (tmp_path / "manifest.csv").write_text((source / "manifest.csv").read_text())
    with pytest.raises(InputError, match=r"the codes of \d+.flac in dataset= do not give its latents in latents="):
        train.fit(config(rvq, tmp_path / "run", "objective=ns2", *heard(tmp_path)))
    for unit in (tmp_path / "cache" / "codes").rglob("*.safetensors"):
        content = unit.read_bytes()
        unit.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorpusError, match="its checksum does not agree; remove it and begin again"):
        train.fit(config(rvq, tmp_path / "run", "objective=ns2", *heard(tmp_path)))
    for unit in (tmp_path / "cache" / "codes").rglob("*.safetensors"):
        unit.unlink()
    with pytest.raises(InputError, match="do not give its latents"):  # made again
        train.fit(config(rvq, tmp_path / "run", "objective=ns2", *heard(tmp_path)))


@pytest.mark.parametrize("size", options("flow"))
def test_sizes_are_what_they_say(size):
    text = (CONF / "flow" / f"{size}.yaml").read_text()
    cfg = composed("task=flow", "codec=x", f"flow={size}")
    cfg.space = SPACE | {"channels": 32}
    with torch.device("meta"):
        network = instantiate(cfg.flow.network)
    assert count(network) / 1e6 == pytest.approx(int(text.split()[1]), rel=0.1)


def test_latents_are_made_once_and_shared_among_processes(source, rvq, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path / "cache"))
    data = ["latents=null", "dataset=folder", f"dataset.path={source}", "dataset.holdout=0.25", "condition=prompt"]
    runs = []
    for run in ("one", "two"):
        train.fit(config(rvq, tmp_path / run, *data))
        runs.append(load_checkpoint(tmp_path / run / "checkpoints" / "last.ckpt")["state_dict"])
        folders = list((tmp_path / "cache" / "latents").iterdir())
        assert len(folders) == 1
        times = {path.name: path.stat().st_mtime_ns for path in folders[0].iterdir()}
    assert times == {path.name: path.stat().st_mtime_ns for path in folders[0].iterdir()}
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items())  # made or found, they begin alike
    assert load_index(folders[0]).statistics.kind == "pre"
    corpus = instantiate(composed("dataset=folder", f"dataset.path={source}", "sample_rate=800").dataset)
    with pytest.raises(InputError, match="kind=middle"):
        cached_latents(rvq[0], corpus, "middle")


def test_other_latents_and_symbols_are_refused(source, rvq, tmp_path):
    run = tmp_path / "run"
    train.fit(config(rvq, run, "condition=phones"))
    last = run / "checkpoints" / "last.ckpt"
    saved(tmp_path / "other.ckpt", "rvq_mimi", seed=1)
    with pytest.raises(InputError, match="of another codec's latents"):
        train.fit(config((tmp_path / "other.ckpt", rvq[1]), run))
    made_by_hand(saved(tmp_path / "same.ckpt", "rvq_mimi"), source, tmp_path / "pre", "pre")
    with pytest.raises(CheckpointError, match="cannot go on with these latents, as their fingerprint, kind differ"):
        train.fit(config((tmp_path / "same.ckpt", tmp_path / "pre"), run, "condition=phones", f"ckpt_path={last}"))
    with pytest.raises(InputError, match="objective=ns2 is for sums of quantized vectors"):
        train.fit(config((tmp_path / "same.ckpt", tmp_path / "pre"), run, "objective=ns2"))
    with pytest.raises(CheckpointError, match="do not fit this model"):
        train.fit(config(rvq, run, "condition=phones", "flow.network.hidden=24", f"ckpt_path={last}"))
    with pytest.raises(InputError, match="kind pre, not post"):
        train.fit(config((tmp_path / "same.ckpt", tmp_path / "pre"), run, "kind=post"))


def test_what_is_missing_is_said(rvq, tmp_path):
    with pytest.raises(InputError, match="name its checkpoint, codec=PATH"):
        train.fit(composed("task=flow", f"run_dir={tmp_path}", *SMALL))
    with pytest.raises(CheckpointError, match="there is no checkpoint at nowhere"):
        train.fit(composed("task=flow", "codec=nowhere.ckpt", f"run_dir={tmp_path}", *SMALL))
    with pytest.raises(InputError, match="max_steps=0"):
        train.fit(config(rvq, tmp_path, "max_steps=0"))
    with pytest.raises(InputError, match="nothing is held out"):
        train.fit(config(rvq, tmp_path, "data.val_clips=0"))
    with pytest.raises(HydraException, match="characters\\+prompt"):
        composed("task=flow", "condition=prompt+characters")
    with pytest.raises(HydraException, match="Could not override 'model'"):
        composed("task=flow", "model=mimi")
