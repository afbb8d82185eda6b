"""Phones as a latent loss: what is spelt counts, when it is said does not, and what is not known is left out."""

import copy

import pytest
import torch

from codec.data.folder import FolderCorpus
from codec.distillation.ctc import PhoneCTC
from codec.quantizers.vae import VAE
from codec.training.run import phones_of
from codec.utils.errors import InputError
from tests.distillation.test_cosine import taught
from tests.helpers.parts import tone_batch

ABC = [("a", 0.0), ("b", 0.1), ("c", 0.5)]
WAV = torch.zeros(1, 1, 1)  # only its latents are spelt


def phone_ctc(frame_rate: float = 50.0, **options) -> PhoneCTC:
    torch.manual_seed(0)
    return PhoneCTC("a b c", 4, frame_rate, **options)


def spelling(numbers: list[int], sure: float = 20.0) -> tuple[PhoneCTC, torch.Tensor]:
    """A latent loss and latents ``[1, 4, F]`` that spell the numbers, one in each frame."""
    made = phone_ctc()
    torch.nn.init.eye_(made.projection.weight)
    torch.nn.init.zeros_(made.projection.bias)
    return made, sure * torch.nn.functional.one_hot(torch.tensor(numbers), 4).t()[None].float()


def test_latents_that_spell_the_phones_cost_nothing_whenever_they_are_said():
    made, latents = spelling([0, 1, 1, 0, 2, 3, 3, 0])
    assert made(latents, WAV, [ABC]) < 1e-4
    assert made(latents, WAV, [[(symbol, 0.9) for symbol, _ in ABC]]) == made(latents, WAV, [ABC])
    assert made(latents, WAV, [ABC[::-1]]) > 5
    assert made(latents, WAV, [ABC[:2]]) > 5
    twice = [("a", 0.0), ("a", 0.1)]
    assert spelling([1, 1])[0](spelling([1, 0, 1])[1], WAV, [twice]) < 1e-4
    assert made(spelling([1, 1, 1])[1], WAV, [twice]) > 5


def test_fast_speech_fits_into_slow_frames():
    """A second of 12 frames with 20 phones."""
    said = [("abc"[n % 3], 0.05 * n) for n in range(20)]
    slow, tight = phone_ctc(12.5), phone_ctc(12.5, per_second=12.5)
    assert (slow.places, tight.places, phone_ctc(75.0).places) == (4, 1, 1)
    latents = torch.nn.Parameter(torch.randn(1, 4, 12))
    assert tight(latents, WAV, [said]) == 0
    optimizer = torch.optim.Adam([latents, *slow.parameters()], 0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = slow(latents, WAV, [said])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_clips_without_phones_have_no_part_in_it():
    made, latents = phone_ctc(), torch.randn(3, 4, 12, requires_grad=True)
    said = [ABC, [], ABC[::-1]]
    loss = made(latents, WAV, said)
    torch.testing.assert_close(loss, made(latents[[0, 2]], WAV, [ABC, ABC[::-1]]))
    torch.testing.assert_close(loss, (made(latents[:1], WAV, said[:1]) + made(latents[2:], WAV, said[2:])) / 2)
    loss.backward()
    assert latents.grad.abs().sum((1, 2)).tolist()[1] == 0
    made.zero_grad()
    nothing = made(latents, WAV, [[], [], []])
    nothing.backward()
    assert nothing == 0
    assert all(not p.grad.any() for p in made.parameters())


def on_a_rank(rank: int) -> list[torch.Tensor]:
    """The mean over two processes of gradients of which each has two clips, one of them with three times the clips
    that have phones."""
    made, latents, said = phone_ctc(), *clips()
    mine = slice(2 * rank, 2 * rank + 2)
    model = torch.nn.parallel.DistributedDataParallel(made)
    model(latents[mine], WAV, said[mine]).backward()
    return [p.grad for p in made.parameters()]


def clips() -> tuple[torch.Tensor, list]:
    latents = torch.randn(4, 4, 12, generator=torch.Generator().manual_seed(1))
    return latents, [ABC, ABC[::-1], [], ABC[:2]]


def test_two_processes_learn_what_one_does(pair):
    first, second = pair(on_a_rank)
    whole = phone_ctc()
    whole(clips()[0], WAV, clips()[1]).backward()
    for one, other, p in zip(first, second, whole.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad, atol=1e-6, rtol=1e-4)
        assert torch.equal(one, other)


def test_it_takes_the_place_of_a_teacher():
    task = taught(VAE(8, 100, channels=6), "split")
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
    other.one_pass(tone_batch(2, 800), [ABC, ABC])  # a teacher does not mind
    assert task.parts()["teacher"] is task.distillation


def test_what_cannot_be_spelt_is_said():
    with pytest.raises(InputError, match=r"the phone 'x' is not in distill\.vocabulary"):
        phone_ctc()(torch.randn(1, 4, 12), WAV, [[("x", 0.0)]])
    with pytest.raises(InputError, match="this batch was kept without them"):
        phone_ctc()(torch.randn(1, 4, 12), WAV)
    with pytest.raises(InputError, match="the corpus has none: take dataset=espeak"):
        PhoneCTC("", 4, 50.0)
    with pytest.raises(ValueError, match="valid: semantic"):
        phone_ctc(target="acoustic")


def test_the_vocabulary_is_that_of_the_manifest(speech_folder, tmp_path):
    (tmp_path / "phones.csv").write_text("file,phones\n00.flac,b@0.0 t͡s@0.1\n01.flac,\n02.flac,a@0.5 b@0.7\n")
    corpus = FolderCorpus(speech_folder, 16_000, manifest=tmp_path / "phones.csv")
    assert sorted(phones_of(corpus).split()) == ["a", "b", "t͡s"]
    assert phones_of(FolderCorpus(speech_folder, 16_000)) == ""
    with pytest.raises(InputError, match=r"distill\.vocabulary="):
        phones_of(object())
