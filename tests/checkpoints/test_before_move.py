"""Checkpoints that the commit before the great move wrote still load, are scored, resumed and exported.

``codec.ckpt`` and ``flow.ckpt`` were written after two of four steps by the options below, on the recordings that
:func:`speech` makes; the losses are those of the last steps of that commit's own uninterrupted code.
"""

import csv
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from codec.__main__ import main
from codec.checkpoints.load import load_codec
from codec.flow.load import load_flow, statistics_of
from codec.latents.latent_space import LatentSpace
from tests.helpers.programs import call
from tests.helpers.signals import speechlike

THERE = Path(__file__).parent / "before_move"
DATA = ["dataset=folder", "dataset.path=speech", "dataset.holdout=0.25", "batch_size=2", "data.workers=0"]
SHORT = ["trainer=cpu", "trainer.log_every_n_steps=1", "trainer.num_sanity_val_steps=0", "~callbacks.progress"]
SHORT += ["trainer.enable_progress_bar=false", "logger=csv", "val_every=2", "warmup=2", "max_steps=4"]
CODEC = ["model=mimi_transformer", "channels=2", "latent_dim=16", "transformer_layers=1", "transformer_hidden=32"]
CODEC += ["transformer_heads=2", "quantizer.codebook_size=16", "quantizer.codebook_dim=4", "quantizer.n_q=4"]
CODEC += ["quantizer.kmeans_iters=2", "disc=msstft", "disc.members.msstft.width=1", "loss=balancer", "segment=0.56"]
CODEC += ["distill=shuffled", "teacher@distill.teacher.teacher=random", "distill.teacher.teacher.width=16"]
CODEC += ["distill.teacher.teacher.blocks=1", "data.val_clips=1", "data.val_seconds=0.6", "report.clips=1"]
CODEC += ["report.seconds=1", "report.audio=1", "callbacks.validation.metrics=[mel_distance]"]
CODEC += ["callbacks.validation.shown=0", "optim/schedule=exponential"]
FLOW = ["task=flow", "codec_ckpt=codec.ckpt", "text=aligned_phones", "speaker=prompt", "flow.network.width=16"]
FLOW += ["flow.network.layers=1", "flow.network.heads=2", "flow.network.hidden=16", "data.val_clips=2"]
FLOW += ["text.hidden=8", "speaker.hidden=8", "speaker.blocks=1"]


@pytest.fixture
def _there(tmp_path, monkeypatch):
    """A folder with the checkpoints and the recordings that they were trained on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEC_CACHE", "cache")
    for name in ("codec.ckpt", "flow.ckpt"):
        shutil.copy(THERE / name, name)
    speech = Path("speech")
    speech.mkdir()
    lines = ["file,speaker,text,phones"]
    for n in range(12):
        soundfile.write(speech / f"{n:02d}.flac", speechlike(1.5, 16_000, n), 16_000)
        lines.append(f"{n:02d}.flac,s{n % 4},abc cab,a@0.0 b@{0.05 * n:.2f} a@0.6")
    (speech / "manifest.csv").write_text("\n".join(lines) + "\n")


def logged(run: str, *names: str) -> list[float]:
    """The last value of each of these in the log of a run."""
    with open(Path(run, "csv", "metrics.csv")) as file:
        rows = list(csv.DictReader(file))
    return [float([row[name] for row in rows if row[name]][-1]) for name in names]


@pytest.mark.usefixtures("_there", "_costs_nothing")
def test_a_codec_is_resumed_scored_and_exported():
    codec, config = load_codec("codec.ckpt")
    assert (config["step"], sum(p.numel() for p in codec.parameters())) == (2, 32_848)
    assert codec.encode(torch.zeros(1, 1, 3840)).shape == (1, 4, 2)
    names = ("train/disc", "train/distill", "train/mel", "val/mel_distance")
    assert call("train.py", *CODEC, *DATA, *SHORT, "ckpt_path=codec.ckpt", "run_dir=again") == 0
    assert logged("again", *names) == pytest.approx([2.0000405, 0.7721958, 1.6821759, 8.9855528], rel=1e-4)
    assert call("eval.py", "ckpt=codec.ckpt", "metrics=[stoi]", "workers=0", "clips=1", "seconds=1", "audio=0") == 0
    main(["export", "exported", "--to", "transformers", "--ckpt", "codec.ckpt"])
    assert Path("exported", "model.safetensors").is_file()


@pytest.mark.usefixtures("_there")
def test_a_flow_model_inpaints_and_is_resumed():
    flow = load_flow("flow.ckpt")
    space = LatentSpace.load("codec.ckpt", statistics_of(flow))
    x = space.encode(torch.zeros(1, 1, 1920 * 6))
    span = torch.zeros(1, 6, dtype=torch.bool)
    span[:, 2:4] = True
    conditioning = {"phones": [[("a", 0.0)]], "prompt": x}
    filled = flow.inpaint(x, span, conditioning, steps=2, seed=0)
    assert torch.equal(filled[~span.expand_as(filled)], x[~span.expand_as(x)])
    assert call("train.py", *FLOW, *DATA, *SHORT, "ckpt_path=flow.ckpt", "run_dir=flow") == 0
    assert logged("flow", "train/loss", "val/loss") == pytest.approx([1.4558016, 1.2205522], rel=1e-4)


@pytest.mark.usefixtures("_there")
def test_a_flow_run_is_repeated_from_its_configuration():
    config = torch.load("flow.ckpt", weights_only=True)["config"]
    Path("run", "checkpoints").mkdir(parents=True)
    shutil.copy("codec.ckpt", config["codec"])
    Path("old").mkdir()
    Path("old", "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert call("train.py", f"--config-path={Path('old').resolve()}", "--config-name=config") == 0
    assert logged("flow", "train/loss", "val/loss") == pytest.approx([1.5157858, 1.2216494], rel=1e-4)
