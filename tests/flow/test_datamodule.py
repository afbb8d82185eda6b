"""Spans, prompts and batches: functions of (seed, draw) that keep apart what is to be filled in and what is told."""

import logging
from itertools import islice

import numpy as np
import pytest
import torch

from codec.data.base import CorpusError
from codec.data.vocabulary import characters, phones
from codec.flow.datamodule import LatentData
from codec.flow.masking import Spans, draw_prompt
from tests.helpers.flow_parts import conditions
from tests.helpers.latent_corpora import Clips, Corpus


def data(corpus=None, condition=(), max_seconds=0.5, **options) -> LatentData:
    options = dict(batch_size=3, workers=0, val_clips=4, prompt=(0.05, 0.1)) | options
    spans = Spans(seconds=(0.03, 0.15), every=0.25)
    return LatentData(corpus or Corpus(), conditions(*condition), spans, max_seconds, **options)


def batches(source: LatentData, count: int) -> list[dict]:
    return list(islice(source.train_dataloader(), count))


def test_spans_are_of_the_lengths_and_shares_that_were_asked_for():
    rng, spans = np.random.default_rng(0), Spans(seconds=(0.3, 1.5), every=100.0, long=0.3, all=0.2)
    drawn = [spans.draw(200, 25.0, rng) for _ in range(2000)]
    lengths = np.array([span.sum() for span in drawn])
    assert np.mean(lengths == 200) == pytest.approx(0.2, abs=0.03)
    assert np.mean((lengths >= 100) & (lengths < 200)) == pytest.approx(0.3, abs=0.03)
    short = lengths[lengths < 100]
    assert set(short) == set(range(8, 38))  # 0.3 to 1.5 s at 25 Hz, rounded
    covered = np.mean([span for span in drawn if span.sum() < 100], axis=0)
    assert covered[100] > 0.05  # anywhere
    assert all(spans.draw(1, 12.5, rng).all() for _ in range(20))
    many = Spans(every=1.0, long=0.0, all=0.0).draw(1000, 10.0, rng)
    assert (np.diff(many.astype(int)) == 1).sum() > 5
    with pytest.raises(ValueError, match="together 1 at most"):
        Spans(long=0.8, all=0.3)


@pytest.mark.parametrize("seed", range(30))
def test_a_prompt_never_overlaps_the_span(seed):
    rng = np.random.default_rng(seed)
    total = int(rng.integers(2, 60))
    frames = int(rng.integers(1, total + 1))
    first = int(rng.integers(total - frames + 1))
    span = Spans(seconds=(0.03, 0.15)).draw(frames, 100.0, rng)
    wanted = int(rng.integers(1, 20))
    left, begin, end = draw_prompt(span, first, total, wanted, rng)
    assert 0 <= begin < end <= total
    assert 1 <= end - begin <= wanted
    hidden = np.zeros(total, bool)
    hidden[first : first + frames] = left
    assert not hidden[begin:end].any()
    assert not (left & ~span).any()  # spans only shrink, and where they do by a quarter at most
    assert (span & ~left).sum() <= max(1, total // 4)
    assert left.any() or span.sum() <= max(1, total // 4)


def test_examples_are_what_the_recording_has_there():
    source = data(condition=("aligned_phones", "prompt"))
    for batch in batches(source, 12):
        assert batch["latents"].shape[2] <= 50
        assert batch["span"].dtype == torch.bool
        for n, length in enumerate(batch["lengths"].tolist()):
            number, at = batch["latents"][n, 0, 0], (100 * batch["latents"][n, 1, :length]).round()
            assert bool((batch["latents"][n, 0, :length] == number).all())
            assert torch.equal(at, at[0] + torch.arange(length))
            assert batch["span"][n, :length].any()
            assert not batch["span"][n, length:].any()
            assert not batch["latents"][n, :, length:].any()
            prompt = batch["prompt"][n, :, : batch["prompt_lengths"][n]]
            assert bool((prompt[0] == number).all())
            hidden = set(at[batch["span"][n, :length]].tolist())
            assert not hidden & set((100 * prompt[1]).round().tolist())
            assert batch["phones"][n][0][1] >= 0
    assert "prompt" not in batches(data(condition=("phones",)), 1)[0]


def seen(batches: list[dict]) -> list[torch.Tensor]:
    return [value for batch in batches for value in (batch["latents"], batch["span"], batch["prompt"])]


def test_draws_are_a_function_of_seed_and_number_whoever_takes_them():
    options = dict(condition=("prompt",))
    whole = seen(batches(data(**options), 6))
    for workers in (0, 2):
        again = seen(batches(data(**options, workers=workers), 6))
        assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    resumed = data(**options)
    resumed.load_state_dict({"draws": 9, "step": 3})
    assert all(torch.equal(a, b) for a, b in zip(whole[9:], seen(batches(resumed, 3)), strict=True))
    other = seen(batches(data(**options, seed=1), 6))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(whole, other, strict=True))
    source = data()
    source.setup("fit")
    epoch = [float(source._train[n]["latents"][0, 0]) for n in range(source._train.slots)]
    assert sorted(epoch) == [0, 1, 1, 2, 2, 3]  # as many slots as pieces of half a second


def test_validation_is_the_same_every_time():
    first, second = (list(data(condition=("prompt",), seed=seed).val_dataloader()) for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(seen(first), seen(second), strict=True))
    assert [file for batch in first for file in batch["file"]] == ["f0", "f1"]


def test_who_cannot_be_used_is_left_out_and_counted_in_one_line(caplog):
    class Some(Clips):
        def about(self, n):
            changes = [{}, {"text": ""}, {"text": "xyz"}, {"text": "a" * 100}, {}, {}]
            return super().about(n) | changes[n]

    corpus = Corpus()
    corpus.train = Some([40, 40, 40, 40, 51, 1])
    source = data(corpus, ("characters",))
    with caplog.at_level(logging.WARNING):
        source.setup("fit")
    (line,) = caplog.messages
    assert line.startswith("5 recordings are left out: ")
    reasons = ["without text", "with unknown characters", "spoken too fast", "longer than 0.5 s", "too short"]
    assert all(f"1 {reason}" in line for reason in reasons)
    assert {file for batch in batches(source, 3) for file in batch["file"]} == {"f0"}
    assert {length for batch in batches(source, 3) for length in batch["lengths"].tolist()} == {40}  # whole
    corpus.train = Clips([80, 90])
    with pytest.raises(CorpusError, match="no recording of the corpus can be used"):
        data(corpus, ("characters",)).setup("fit")
    with pytest.raises(CorpusError, match="fewer than 2 frames"):
        data(max_seconds=0.01)


def test_vocabularies_have_every_symbol_once():
    assert characters(["Ab  c", "b${}ﬁ"]) == "}{ificba$ "[0:1] + "{ifcba$ "
    assert "${" not in characters(["${"])
    assert phones([[("a", 0.0), ("t͡s", 0.1)], [("a", 0.2)]]).split() == ["t͡s", "a"]
