"""The recogniser: it learns, repeats itself, and scores spans as parts of a whole."""

import math

import numpy as np
import pytest
import torch

from codec.data.folder import FolderCorpus
from codec.evaluation.judges import recogniser
from codec.evaluation.judges.crops import crops_without
from codec.evaluation.judges.recogniser import Recogniser
from codec.evaluation.metrics.base import MetricError
from codec.utils.errors import InputError
from tests.helpers.tones import RATE, Tones

ALL = (0.0, math.inf)


def test_it_learns_and_finds_where_the_errors_are(tones):
    assert tones.error_rate < 0.1
    item = Tones(3.0)[20_000]
    wav = item["wav"][0].numpy()
    assert tones.edits(wav, RATE, item["phones"], ALL).edits <= 2
    broken = wav.copy()
    broken[RATE : 2 * RATE] = 1e-3 * np.random.default_rng(0).standard_normal(RATE)
    inside = tones.edits(broken, RATE, item["phones"], (1.0, 2.0))
    assert inside.phones >= 3
    assert inside.edits >= 0.5 * inside.phones  # of four phones, some are guessed
    outside = [tones.edits(broken, RATE, item["phones"], span) for span in ((0.0, 1.0), (2.0, 3.0))]
    assert sum(part.edits for part in outside) <= 3


def test_sample_rate_and_level_hardly_matter_and_features_are_those_of_the_span(tones):
    item = Tones(2.0)[20_001]
    wav = item["wav"][0].numpy()
    quiet, loud = tones.transcribe(0.1 * wav, RATE), tones.transcribe(wav, RATE)
    assert [phone.symbol for phone in quiet] == [phone.symbol for phone in loud]
    other = np.interp(np.arange(int(1.5 * len(wav))) / 1.5, np.arange(len(wav)), wav)  # a poor resampling to 24 kHz
    assert tones.edits(other, 24_000, item["phones"], ALL).edits <= 3
    whole = tones.features(wav, RATE, (0.0, 2.0))
    assert whole.shape == (100, recogniser.HIDDEN)
    np.testing.assert_array_equal(tones.features(wav, RATE, (0.5, 1.0)), whole[25:50])


def test_trained_once_and_equal_when_trained_again(monkeypatch, tmp_path):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path))
    monkeypatch.setattr(recogniser, "CROP", RATE)
    state = torch.get_rng_state()
    first = Recogniser(Tones(), width=8, steps=2)
    assert torch.equal(torch.get_rng_state(), state)
    with monkeypatch.context() as patch:
        patch.setattr(recogniser, "train", lambda *_: pytest.fail("trained again"))
        second = Recogniser(Tones(), width=8, steps=2)
    next((tmp_path / "judges").glob("*.safetensors")).unlink()
    third = Recogniser(Tones(), width=8, steps=2)
    for other in (second, third):
        for name, value in first.network.state_dict().items():
            assert torch.equal(value, other.network.state_dict()[name])
        assert (first.identity, first.error_rate, first.symbols) == (other.identity, other.error_rate, other.symbols)
    names = {Recogniser(Tones(), width=8, steps=2, **change).identity for change in ({"seed": 1}, {"exclude": ["s1"]})}
    assert len(names | {first.identity}) == 3


def test_it_does_not_learn_from_those_to_be_judged():
    items = list(crops_without(["s1", "de+s3"], Tones(), RATE, 9, 0))
    assert [item["speaker"] for item in items] == ["s0", "s2"] * 4 + ["s0"]


def test_unsuitable_corpora_and_audio_are_refused(speech_folder, tones):
    with pytest.raises(InputError, match="24000 Hz"):
        Recogniser(FolderCorpus(speech_folder, 24_000))
    with pytest.raises(InputError, match="corpus with phones"):
        Recogniser(FolderCorpus(speech_folder, RATE, holdout=0.25), width=8, steps=1)
    with pytest.raises(InputError, match="nearly all voices"):
        Recogniser(Tones(), exclude=["s0", "s1", "s2", "s3"], width=8, steps=1)
    for wav in (np.zeros(0), np.full(RATE, np.nan)):
        with pytest.raises(MetricError):
            tones.transcribe(wav, RATE)
