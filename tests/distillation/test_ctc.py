"""Phones as a latent loss: their order counts, their times do not, and clips without phones are left out."""

import copy

import pytest
import torch

from codec.data.folder import FolderCorpus
from codec.distillation.cosine import Distillation
from codec.distillation.ctc import PhoneCTC
from codec.distillation.teachers.random import RandomTeacher
from codec.quantizers.vae import VAE
from codec.training.run import phones_of
from codec.utils.errors import InputError
from tests.helpers.distillation import distilled
from tests.helpers.parts import tone_batch

ABC = [("a", 0.0), ("b", 0.1), ("c", 0.5)]
WAV = torch.zeros(1, 1, 1)  # only its latents matter


def phone_ctc(frame_rate: float = 50.0, **options) -> PhoneCTC:
    torch.manual_seed(0)
    return PhoneCTC("a b c", 4, frame_rate, **options)


def one_hot(labels: list[int]) -> torch.Tensor:
    """Latents ``[1, 4, F]`` with one label in each frame."""
    return 20.0 * torch.nn.functional.one_hot(torch.tensor(labels), 4).t()[None].float()


def test_only_the_order_of_the_phones_counts():
    loss = phone_ctc()
    torch.nn.init.eye_(loss.projection.weight)
    torch.nn.init.zeros_(loss.projection.bias)
    latents, twice = one_hot([0, 1, 1, 0, 2, 3, 3, 0]), [("a", 0.0), ("a", 0.1)]
    assert loss(latents, WAV, [ABC]) < 1e-4
    assert loss(latents, WAV, [[(symbol, 0.9) for symbol, _ in ABC]]) == loss(latents, WAV, [ABC])
    assert loss(latents, WAV, [ABC[::-1]]) > 5
    assert loss(latents, WAV, [ABC[:2]]) > 5
    assert loss(one_hot([1, 0, 1]), WAV, [twice]) < 1e-4
    assert loss(one_hot([1, 1, 1]), WAV, [twice]) > 5


def test_fast_speech_fits_into_low_frame_rates():
    """A second of 12 frames with 20 phones."""
    clip = [("abc"[n % 3], 0.05 * n) for n in range(20)]
    slow, tight = phone_ctc(12.5), phone_ctc(12.5, per_second=12.5)
    assert (slow.per_frame, tight.per_frame, phone_ctc(75.0).per_frame) == (4, 1, 1)
    latents = torch.nn.Parameter(torch.randn(1, 4, 12))
    assert tight(latents, WAV, [clip]) == 0
    optimizer = torch.optim.Adam([latents, *slow.parameters()], 0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = slow(latents, WAV, [clip])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_clips_without_phones_are_left_out():
    loss, latents = phone_ctc(), torch.randn(3, 4, 12, requires_grad=True)
    clips = [ABC, [], ABC[::-1]]
    mean = loss(latents, WAV, clips)
    torch.testing.assert_close(mean, loss(latents[[0, 2]], WAV, [ABC, ABC[::-1]]))
    torch.testing.assert_close(mean, (loss(latents[:1], WAV, clips[:1]) + loss(latents[2:], WAV, clips[2:])) / 2)
    mean.backward()
    assert not latents.grad[1].any()
    loss.zero_grad()
    none = loss(latents, WAV, [[], [], []])
    none.backward()
    assert none == 0
    assert all(not p.grad.any() for p in loss.parameters())


def batch() -> tuple[torch.Tensor, list]:
    latents = torch.randn(4, 4, 12, generator=torch.Generator().manual_seed(1))
    return latents, [ABC, ABC[::-1], [], ABC[:2]]


def on_a_rank(rank: int) -> list[torch.Tensor]:
    """The gradients, averaged over two ranks, of two clips each, of which one rank has one without phones."""
    loss, (latents, clips) = phone_ctc(), batch()
    mine = slice(2 * rank, 2 * rank + 2)
    model = torch.nn.parallel.DistributedDataParallel(loss)
    model(latents[mine], WAV, clips[mine]).backward()
    return [p.grad for p in loss.parameters()]


def test_two_ranks_equal_one_process(pair):
    first, second = pair(on_a_rank)
    whole, (latents, clips) = phone_ctc(), batch()
    whole(latents, WAV, clips).backward()
    for one, other, p in zip(first, second, whole.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad, atol=1e-6, rtol=1e-4)
        assert torch.equal(one, other)


def test_it_takes_the_place_of_a_teacher():
    teacher = Distillation(RandomTeacher(16, 1), 8, 800, 100, "split")
    task = distilled(VAE(8, 100, channels=6), teacher)
    other = copy.deepcopy(task)
    task.distillation = PhoneCTC("a b c", 8, 100, "split")
    task.distillation.attach(task.codec.quantizer)
    assert task.distillation.projection.in_features == 3
    total, values = task.one_pass(tone_batch(2, 800), [ABC, ABC])
    total.backward()
    assert float(values["distill"]) > 0
    assert any(p.grad.abs().sum() > 0 for p in task.codec.encoder.parameters())
    assert all(not p.grad.any() for p in task.codec.decoder.parameters())
    assert not task.codec.quantizer.project_in.weight.grad[3:].any()
    other.one_pass(tone_batch(2, 800), [ABC, ABC])  # a teacher ignores them
    assert task.parts()["teacher"] is task.distillation


def test_unknown_or_missing_phones_are_refused():
    with pytest.raises(InputError, match=r"'x' is not in distill\.vocabulary"):
        phone_ctc()(torch.randn(1, 4, 12), WAV, [[("x", 0.0)]])
    with pytest.raises(InputError, match="without them"):
        phone_ctc()(torch.randn(1, 4, 12), WAV)
    with pytest.raises(InputError, match="dataset=espeak"):
        PhoneCTC("", 4, 50.0)


def test_the_vocabulary_is_that_of_the_manifest(speech_folder, tmp_path):
    (tmp_path / "phones.csv").write_text("file,phones\n00.flac,b@0.0 t͡s@0.1\n01.flac,\n02.flac,a@0.5 b@0.7\n")
    corpus = FolderCorpus(speech_folder, 16_000, manifest=tmp_path / "phones.csv")
    assert sorted(phones_of(corpus).split()) == ["a", "b", "t͡s"]
    assert phones_of(FolderCorpus(speech_folder, 16_000)) == ""
    with pytest.raises(InputError, match=r"distill\.vocabulary="):
        phones_of(object())
