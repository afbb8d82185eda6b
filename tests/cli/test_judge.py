"""``python -m codec judge`` from its words to its files."""

import json
from pathlib import Path

import pytest
import torch

from codec.__main__ import main
from codec.evaluation.probing import probes
from codec.evaluation.report import Report
from codec.flow import load
from codec.flow.evaluation.panel import Panel
from codec.flow.model import FlowModel
from codec.latents.latent_space import latent_fingerprint
from tests.helpers.codecs import HOP, RATE, recordings, saved
from tests.helpers.commands import fails, misused
from tests.helpers.flow_parts import conditions
from tests.helpers.flow_parts import small_flow as of_three


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return recordings(tmp_path_factory.mktemp("judge") / "source")


@pytest.fixture(scope="module")
def codec(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("judge") / "codec.ckpt"
    torch.set_num_threads(1)
    saved(path, "vae")
    return path


@pytest.fixture
def flow(codec, monkeypatch) -> FlowModel:
    """The flow model of any checkpoint."""
    from codec.checkpoints.load import load_codec

    made = of_three()
    made.condition, made.fingerprint = conditions(), latent_fingerprint(load_codec(codec)[0], "pre")
    made.max_frames = 300
    monkeypatch.setattr(load, "load_with_config", lambda path, ema: (made, {"codec_ckpt": str(codec)}))
    assert (made.sample_rate, made.hop_length) == (RATE, HOP)
    return made


@pytest.fixture(autouse=True)
def asked(monkeypatch, panel):
    """Judges that are there already; what they are kept apart from is noted."""
    asked = []
    monkeypatch.setattr(Panel, "trained_without", lambda speakers, folders: asked.append(speakers) or panel)
    return asked


def test_a_table_and_its_reports(source, codec, flow, tmp_path, capsys, asked):
    words = ["--ckpt", "runs/two/last.ckpt", "dataset=folder", f"dataset.path={source}", "dataset.holdout=0.4"]
    words += ["--codec-ckpt", str(codec), "--steps", "2", "--out", str(tmp_path), "--clips", "4"]
    main(["judge", "--ckpt", "runs/one/last.ckpt", *words, "--audio", "2"])
    printed = capsys.readouterr().out
    for name in ("recording", "copy synthesis (ceiling)", "interpolation (floor)", "one/last.ckpt", "two/last.ckpt"):
        assert name in printed
    assert (tmp_path / "table.txt").read_text().strip() in printed
    assert len(asked[0]) == 2
    report = Report.read(tmp_path / "one_last.json")
    assert report.facts["steps"] == 2
    assert len(report.clips) == 3
    assert len(list(tmp_path.glob("*.json"))) == 5
    assert len(list((tmp_path / "audio").iterdir())) == 2 * 5  # two recordings, and what four systems made of each
    page = (tmp_path / "examples.html").read_text()
    assert page.count(" s)") >= 2  # where the spans are
    assert "silence in the span" not in printed
    main(["judge", *words, "--after", "0.5", "--silenced"])  # gone on with: spans are longer, and others
    assert "What is known was encoded with silence in the span" in capsys.readouterr().out
    again = Report.read(tmp_path / "last.json")
    assert again.facts["silenced"]
    assert len(again.clips) == 3
    assert not again.clips["span_mcd"].equals(report.clips["span_mcd"])


def test_without_models_the_bounds_and_without_a_codec_the_judges(source, codec, capsys):
    folder = ["dataset=folder", f"dataset.path={source}"]
    main(["judge", "--codec-ckpt", str(codec), "--clips", "2", *folder])
    assert "interpolation (floor)" in capsys.readouterr().out
    main(["judge", *folder])
    printed = capsys.readouterr().out
    assert "judges apart from s" in printed
    assert "equal error rate" in printed
    assert "ceiling" not in printed


def test_latents_are_read(source, codec, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probes, "FRAME_STEPS", 3)
    monkeypatch.setattr(probes, "CTC_STEPS", 3)
    words = ["dataset=folder", f"dataset.path={source}", "dataset.holdout=0.5", "--codec-ckpt", str(codec)]
    main(["judge", *words, "--latents", "pre", "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "latents.json").read_text())
    assert found["channels"] == 3
    assert 0 <= found["linear"]["accuracy"]["mean"] <= 1
    assert "speaker probe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--latents", "pre"], "--codec-ckpt"),
        (["--ckpt", "a.ckpt", "--codec-ckpt", "c.ckpt", "--latents", "pre"], "--ckpt"),
        (["--codec-ckpt", "c.ckpt", "--latents", "pre", "--after", "1"], "--after"),
        (["--codec-ckpt", "c.ckpt", "--latents", "post", "--silenced"], "--silenced"),
        (["--ckpt", "a.ckpt", "--ckpt", "a.ckpt"], "given twice"),
        (["--audio", "2"], "--out"),
    ],
)
def test_options_that_do_not_go_together(words, named):
    fails(["judge", "dataset=folder", *words], named)


def test_numbers_that_cannot_be(capsys):
    for words in (["--clips", "0"], ["--after", "-1"], ["--after", "nan"], ["--seed", "-1"]):
        misused(capsys, ["judge", "dataset=folder", *words], words[0])


def test_options_and_latents_that_do_not_fit(source, codec, flow):
    words = ["judge", "--ckpt", "a.ckpt", "--clips", "2", "dataset=folder", f"dataset.path={source}"]
    fails([*words, "--sampler", "heun"], "sampler=heun")
    flow.fingerprint = "e" * 32
    fails(words, "another codec's latents")
