"""Spans, prompts and batches are functions of (seed, draw), and prompts never overlap spans."""

import logging

import numpy as np
import pytest
import torch

from codec.data.base import CorpusError
from codec.flow.masking import Spans, draw_prompt
from tests.helpers.flow_training import batches, latent_data
from tests.helpers.latent_corpora import Clips, Corpus


def test_spans_have_the_configured_lengths_and_shares():
    rng, spans = np.random.default_rng(0), Spans(seconds=(0.3, 1.5), every=100.0, long=0.3, all=0.2)
    drawn = [spans.draw(200, 25.0, rng) for _ in range(2000)]
    lengths = np.array([span.sum() for span in drawn])
    assert np.mean(lengths == 200) == pytest.approx(0.2, abs=0.03)
    assert np.mean((lengths >= 100) & (lengths < 200)) == pytest.approx(0.3, abs=0.03)
    assert set(lengths[lengths < 100]) == set(range(8, 38))  # 0.3 to 1.5 s at 25 Hz, rounded
    covered = np.mean([span for span in drawn if span.sum() < 100], axis=0)
    assert covered[100] > 0.05  # anywhere
    assert all(spans.draw(1, 12.5, rng).all() for _ in range(20))
    many = Spans(every=1.0, long=0.0, all=0.0).draw(1000, 10.0, rng)
    assert (np.diff(many.astype(int)) == 1).sum() > 5
    with pytest.raises(ValueError, match="together 1 at most"):
        Spans(long=0.8, all=0.3)


def test_a_prompt_never_overlaps_the_span():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        total = int(rng.integers(2, 60))
        frames = int(rng.integers(1, total + 1))
        first = int(rng.integers(total - frames + 1))
        span = Spans(seconds=(0.03, 0.15)).draw(frames, 100.0, rng)
        wanted = int(rng.integers(1, 20))
        left, begin, end = draw_prompt(span, first, total, wanted, rng)
        assert 0 <= begin < end <= total
        assert 1 <= end - begin <= wanted
        inpainted = np.zeros(total, bool)
        inpainted[first : first + frames] = left
        assert not inpainted[begin:end].any()
        assert not (left & ~span).any()  # spans only shrink, by a quarter of the recording at most
        assert (span & ~left).sum() <= max(1, total // 4)
        assert left.any() or span.sum() <= max(1, total // 4)


class Numbered:
    """Features that contain the number of the recording and of the frame."""

    def item(self, file: str, start_frame: int, frames: int) -> torch.Tensor:
        number, at = torch.full((frames,), float(file[1:])), torch.arange(start_frame, start_frame + frames)
        return torch.stack([number, at]).half()


def test_examples_are_crops_of_recordings_with_their_prompts_and_features():
    data = latent_data(condition=("aligned_phones", "prompt"), features=Numbered())
    for batch in batches(data, 8):
        assert batch["latents"].shape[2] <= 50
        assert batch["span"].dtype == torch.bool
        for n, length in enumerate(batch["lengths"].tolist()):
            number, at = batch["latents"][n, 0, 0], (100 * batch["latents"][n, 1, :length]).round()
            assert bool((batch["latents"][n, 0, :length] == number).all())
            assert torch.equal(at, at[0] + torch.arange(length))
            assert torch.equal(batch["features"][n, :, :length].float(), torch.stack([number.expand(length), at]))
            assert batch["span"][n, :length].any()
            assert not any(batch[name][n, ..., length:].any() for name in ("span", "latents", "features"))
            prompt = batch["prompt"][n, :, : batch["prompt_lengths"][n]]
            assert bool((prompt[0] == number).all())
            inpainted = set(at[batch["span"][n, :length]].tolist())
            assert not inpainted & set((100 * prompt[1]).round().tolist())
            assert batch["phones"][n][0][1] >= 0
    assert "features" not in next(iter(data.val_dataloader()))
    assert "prompt" not in batches(latent_data(condition=("phones",)), 1)[0]


def tensors(batches: list[dict]) -> list[torch.Tensor]:
    return [value for batch in batches for value in (batch["latents"], batch["span"], batch["prompt"])]


def test_a_draw_depends_on_seed_and_number_alone():
    options = dict(condition=("prompt",))
    whole = tensors(batches(latent_data(**options), 6))
    for workers in (0, 1):
        again = tensors(batches(latent_data(**options, workers=workers), 6))
        assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    resumed = latent_data(**options)
    resumed.load_state_dict({"draws": 9, "step": 3})
    assert all(torch.equal(a, b) for a, b in zip(whole[9:], tensors(batches(resumed, 3)), strict=True))
    other = tensors(batches(latent_data(**options, seed=1), 6))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(whole, other, strict=True))
    first, second = (list(latent_data(**options, seed=seed).val_dataloader()) for seed in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))  # validation
    assert [file for batch in first for file in batch["file"]] == ["f0", "f1"]
    data = latent_data()
    data.setup("fit")
    epoch = [float(data._train[n]["latents"][0, 0]) for n in range(data._train.slots)]
    assert sorted(epoch) == [0, 1, 1, 2, 2, 3]  # as many slots as crops of half a second


def test_recordings_that_cannot_be_used_are_counted_in_one_line(caplog):
    class Some(Clips):
        def about(self, n):
            changes = [{}, {"text": ""}, {"text": "xyz"}, {"text": "a" * 100}, {}, {}]
            return super().about(n) | changes[n]

    corpus = Corpus()
    corpus.train = Some([40, 40, 40, 40, 51, 1])
    data = latent_data(corpus, ("characters",))
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    (line,) = caplog.messages
    reasons = ["without text", "with unknown characters", "spoken too fast", "longer than 0.5 s", "too short"]
    assert all(f"1 {reason}" in line for reason in reasons)
    used = batches(data, 3)
    assert {file for batch in used for file in batch["file"]} == {"f0"}
    assert {length for batch in used for length in batch["lengths"].tolist()} == {40}  # whole
    corpus.train = Clips([80, 90])
    with pytest.raises(CorpusError, match="no recording of the corpus can be used"):
        latent_data(corpus, ("characters",)).setup("fit")
    with pytest.raises(CorpusError, match="less than 2 frames"):
        latent_data(max_seconds=0.01)
