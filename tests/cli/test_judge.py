"""``python -m codec judge`` from its words to its files."""

import json
import re
from pathlib import Path

import pytest
import torch

from codec.__main__ import main
from codec.cli.judge import models_among
from codec.evaluation.probing import probes
from codec.evaluation.report import Report
from codec.flow import load
from codec.flow.evaluation.panel import Panel
from codec.flow.model import FlowModel
from codec.latents.latent_space import fingerprint
from tests.helpers.codecs import HOP, RATE, recordings, saved
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
    made.condition, made.fingerprint = conditions(), fingerprint(load_codec(codec)[0], "pre")
    made.max_frames = 300
    monkeypatch.setattr(load, "load_flow", lambda path, ema: made)
    assert (made.sample_rate, made.hop_length) == (RATE, HOP)
    return made


@pytest.fixture(autouse=True)
def asked(monkeypatch, panel):
    """Judges that are there already; what they are kept apart from is noted."""
    asked = []
    monkeypatch.setattr(Panel, "apart_from", lambda speakers, folders: asked.append(speakers) or panel)
    return asked


def test_a_table_and_its_reports(source, codec, flow, tmp_path, capsys, asked):
    words = ["runs/one/last.ckpt", "runs/two/last.ckpt", "dataset=folder", f"dataset.path={source}"]
    words += ["dataset.holdout=0.4", "--ckpt", str(codec), "--steps", "2", "--out", str(tmp_path), "--clips", "4"]
    words += ["--audio", "2"]
    main(["judge", *words])
    printed = capsys.readouterr().out
    for name in ("recording", "copy synthesis (ceiling)", "interpolation (floor)", "one/last.ckpt", "two/last.ckpt"):
        assert name in printed
    assert (tmp_path / "table.txt").read_text().strip() in printed
    assert len(asked[0]) == 2
    report = Report.read(tmp_path / "one_last.json")
    assert report.facts["steps"] == 2
    assert len(report.clips) == 4
    assert len(list(tmp_path.glob("*.json"))) == 5
    assert len(list((tmp_path / "audio").iterdir())) == 2 * 5  # two recordings, and what four systems made of each
    page = (tmp_path / "examples.html").read_text()
    assert page.count(" s)") >= 2  # where the spans are
    assert "silence in the span" not in printed
    main(["judge", *words[1:-2], "--after", "0.5", "--silenced"])  # gone on with: spans are longer, and others
    assert "What is known was encoded with silence in the span" in capsys.readouterr().out
    again = Report.read(tmp_path / "last.json")
    assert again.facts["silenced"]
    assert len(again.clips) == 4
    assert not again.clips["span_mcd"].equals(report.clips["span_mcd"])


def test_without_models_the_bounds_and_without_a_codec_the_judges(source, codec, capsys):
    main(["judge", str(source), "--ckpt", str(codec), "--clips", "2"])
    assert "interpolation (floor)" in capsys.readouterr().out
    main(["judge", str(source)])
    printed = capsys.readouterr().out
    assert "judges apart from s" in printed
    assert "equal error rate" in printed
    assert "ceiling" not in printed


def test_latents_are_read(source, codec, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(probes, "NAMING", 3)
    monkeypatch.setattr(probes, "SPELLING", 3)
    words = ["dataset=folder", f"dataset.path={source}", "dataset.holdout=0.5", "--ckpt", str(codec)]
    main(["judge", *words, "--latents", "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "latents.json").read_text())
    assert found["channels"] == 3
    assert 0 <= found["linear"]["accuracy"]["mean"] <= 1
    assert "speaker probe" in capsys.readouterr().out


def test_words_are_checkpoints_or_a_corpus():
    words = ["a.ckpt", "dataset=folder", "dataset.path=x.ckpt"]
    assert models_among(words) == ([Path("a.ckpt")], words[1:])
    assert models_among(["DIR"]) == ([], ["DIR"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.ckpt", "DIR"], "name its checkpoint, --ckpt"),
        (["a.ckpt", "--ckpt", "c.ckpt"], "no corpus to judge on"),
        (["DIR", "--latents"], "name its checkpoint, --ckpt"),
        (["a.ckpt", "DIR", "--ckpt", "c.ckpt", "--latents"], "leave one of them out"),
        (["DIR", "--ckpt", "c.ckpt", "--kind", "post"], "goes with --latents"),
        (["DIR", "--ckpt", "c.ckpt", "--clips", "0"], "give 1 or more"),
        (
            ["DIR", "--ckpt", "c.ckpt", "--latents", "--after", "1"],
            "--after is about spans to fill in",
        ),
        (["DIR", "--ckpt", "c.ckpt", "--latents", "--silenced"], "--silenced is about spans to fill in"),
        (["DIR", "--ckpt", "c.ckpt", "--after", "-1"], "--after -1: .* give seconds above 0"),
        (["DIR", "--ckpt", "c.ckpt", "--after", "nan"], "--after nan: .* give seconds above 0"),
        (["a.ckpt", "a.ckpt", "DIR", "--ckpt", "c.ckpt"], "named twice"),
        (["a.ckpt", "DIR", "--ckpt", "c.ckpt"], "no checkpoint at a.ckpt"),
    ],
)
def test_bad_words_end_in_one_sentence(words, says, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["judge", *words])
    told = capsys.readouterr().err + str(ended.value)
    assert re.search(says, told)
    assert "Traceback" not in told


def test_options_and_latents_that_do_not_fit_are_told(source, codec, flow, capsys):
    words = ["judge", "a.ckpt", str(source), "--ckpt", str(codec), "--clips", "2"]
    for more, says in ((["--steps", "0"], "steps=0"), (["--sampler", "heun"], "sampler=heun")):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert says in capsys.readouterr().err + str(ended.value)
    flow.fingerprint = "e" * 32
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert "another codec's latents" in capsys.readouterr().err + str(ended.value)
