"""The recogniser: it learns, repeats itself, and hears spans as parts of a whole."""

import logging
import math

import numpy as np
import pytest
import torch

from codec.data.folder import FolderCorpus
from codec.evaluation.judges import recogniser
from codec.evaluation.judges.ctc import transcript
from codec.evaluation.judges.recogniser import Recogniser, disguised
from codec.evaluation.judges.voices import strangers
from codec.evaluation.metrics.base import MetricError
from codec.utils.errors import InputError
from tests.helpers.tones import RATE, Tones


def test_it_learns_and_hears_where_the_errors_are(tones):
    assert tones.error_rate < 0.1
    item = Tones(3.0)[20_000]
    wav = item["wav"][0].numpy()
    assert tones.edits(wav, RATE, item["phones"], (0.0, math.inf)).edits <= 2
    broken = wav.copy()
    broken[RATE : 2 * RATE] = 1e-3 * np.random.default_rng(0).standard_normal(RATE)
    inside = tones.edits(broken, RATE, item["phones"], (1.0, 2.0))
    assert inside.phones >= 3
    assert inside.edits >= 0.5 * inside.phones  # of four phones, some are guessed
    outside = [tones.edits(broken, RATE, item["phones"], span) for span in ((0.0, 1.0), (2.0, 3.0))]
    assert sum(part.edits for part in outside) <= 3


def test_the_rate_and_the_level_hardly_matter(tones):
    item = Tones(2.0)[20_001]
    wav = item["wav"][0].numpy()
    symbols = [phone.symbol for phone in tones.heard(wav, RATE)]
    assert [phone.symbol for phone in tones.heard(0.1 * wav, RATE)] == symbols
    louder = np.interp(np.arange(int(1.5 * len(wav))) / 1.5, np.arange(len(wav)), wav)  # a poor resampling to 24 kHz
    assert tones.edits(louder, 24_000, item["phones"], (0.0, math.inf)).edits <= 3


def test_features_are_those_of_the_span(tones):
    wav = Tones(2.0)[20_002]["wav"][0].numpy()
    whole = tones.features(wav, RATE, (0.0, 2.0))
    assert whole.shape == (100, recogniser.HIDDEN)
    np.testing.assert_array_equal(tones.features(wav, RATE, (0.5, 1.0)), whole[25:50])


def test_a_transcript_has_no_blanks_and_no_repetitions():
    labels = [0, 1, 1, 0, 1, 2, 2, 2, 0]
    heard = transcript(torch.eye(3)[labels], ["a", "b"], 50.0)
    assert [phone.symbol for phone in heard] == ["a", "a", "b"]
    assert [phone.time for phone in heard] == pytest.approx([0.04, 0.09, 0.13])


def test_trained_once_and_equal_when_trained_again(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path))
    monkeypatch.setattr(recogniser, "CROP", RATE)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = Recogniser(Tones(), width=8, steps=2)
    assert torch.equal(torch.rand(4), expected)
    learn = recogniser.learn
    monkeypatch.setattr(recogniser, "learn", lambda *_: pytest.fail("trained again"))
    with caplog.at_level(logging.INFO):
        second = Recogniser(Tones(), width=8, steps=2)
    assert "% on held-out voices" in caplog.text
    monkeypatch.setattr(recogniser, "learn", learn)
    (file,) = (tmp_path / "judges").glob("*.safetensors")
    file.unlink()
    third = Recogniser(Tones(), width=8, steps=2)
    for other in (second, third):
        for name, value in first.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name])
        assert (first.identity, first.error_rate, first.symbols) == (other.identity, other.error_rate, other.symbols)
    names = {Recogniser(Tones(), width=8, steps=2, **change).identity for change in ({"seed": 1}, {"apart": ["s1"]})}
    assert len(names | {first.identity}) == 3


def test_it_does_not_learn_from_those_to_be_judged():
    heard = list(strangers(Tones(), RATE, 9, 0, ["s1", "de+s3"]))
    assert {item["speaker"] for item in heard} == {"s0", "s2"}
    assert len(heard) == 9


def test_the_disguise_keeps_shapes_and_hides_some():
    torch.manual_seed(0)
    x = torch.randn(8, 64, 100)
    hidden = disguised(x)
    assert hidden.shape == x.shape
    assert torch.isfinite(hidden).all()
    blotted = [len(example.unique()) < example.numel() for example in hidden]
    assert sum(blotted) >= 6


def test_what_cannot_teach_or_be_heard_is_refused(speech_folder, tones):
    with pytest.raises(InputError, match="24000 Hz"):
        Recogniser(FolderCorpus(speech_folder, 24_000))
    with pytest.raises(InputError, match="needs a corpus with phones"):
        Recogniser(FolderCorpus(speech_folder, RATE, holdout=0.25), width=8, steps=1)
    with pytest.raises(InputError, match="nearly all voices"):
        Recogniser(Tones(), apart=["s0", "s1", "s2", "s3"], width=8, steps=1)
    for wav in (np.zeros(0), np.full(RATE, np.nan)):
        with pytest.raises(MetricError):
            tones.heard(wav, RATE)
