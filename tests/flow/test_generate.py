"""A small flow model on a small codec, from recording to recording."""

import numpy as np
import pytest
import torch

from codec.checkpoints.load import CheckpointError
from codec.flow.editing import Edit
from codec.flow.generate import FADE, Generator, Sampling, mixed
from codec.utils.errors import InputError
from tests.helpers.codecs import saved as saved_codec
from tests.helpers.flow_checkpoints import saved_flow
from tests.helpers.flow_parts import HOP, RATE
from tests.helpers.signals import speechlike

FEW = Sampling(steps=2)
PHONES = [("a", 0.1), ("b", 0.6), ("_", 1.5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("flow")


@pytest.fixture(scope="module")
def generator(folder) -> Generator:
    flow, _ = saved_flow(folder / "prompt", "aligned_phones", "prompt", seconds=1.0)
    return Generator.load(flow)


@pytest.fixture(scope="module")
def wav() -> np.ndarray:
    return speechlike(2.0, RATE, 0).astype(np.float32)[:-3]  # the last frame is not whole


def test_what_lies_outside_a_span_is_the_recording(generator, wav):
    """Two spans in a recording that is longer than what the model was trained on."""
    options = dict(phones=PHONES, sampling=FEW)
    out = generator.inpaint(wav, [(0.5, 0.8), (1.7, 1.75)], **options)
    fade = round(FADE * RATE)
    assert out.shape == wav.shape
    assert out.dtype == np.float32
    inside = np.zeros(len(wav), bool)
    near = inside.copy()
    for start, end in ((0.5, 0.8), (1.7, 1.75)):
        inside[round(start * RATE) : round(end * RATE)] = True
        near[round(start * RATE) - fade : round(end * RATE) + fade] = True
    assert np.array_equal(out[~near], wav[~near])
    assert (out[inside] != wav[inside]).mean() > 0.9
    again = generator.inpaint(wav, [(0.5, 0.8), (1.7, 1.75)], **options)
    assert again.tobytes() == out.tobytes()
    other = generator.inpaint(wav, [(0.5, 0.8), (1.7, 1.75)], phones=PHONES, sampling=Sampling(steps=2, seed=1))
    assert not np.array_equal(other[inside], out[inside])
    decoded = generator.inpaint(wav, [(0.5, 0.8), (1.7, 1.75)], resynthesise=True, **options)
    assert np.array_equal(decoded[inside], out[inside])
    assert not np.array_equal(decoded[~near], wav[~near])


def test_mixing_has_no_jump():
    new = np.zeros(100, bool)
    new[40:60] = new[63:70] = new[98:] = True
    share = mixed(np.zeros(100, np.float32), np.ones(100, np.float32), new, 9)
    assert np.array_equal(share == 1, new)
    assert not share[:31].any()
    assert np.abs(np.diff(share)).max() == pytest.approx(0.1)
    assert np.array_equal(mixed(np.ones(5), np.zeros(5), np.zeros(5, bool), 3), np.ones(5))


def test_the_voice_is_that_of_the_prompt(generator, wav):
    assert len(generator.speak(0.7, phones=PHONES, prompt=wav, sampling=FEW)) == round(0.7 * RATE)
    first, second = (
        generator.speak(1.503, phones=PHONES, prompt=speechlike(1.0, RATE, n).astype(np.float32), sampling=FEW)
        for n in (1, 2)
    )
    assert len(first) == round(1.503 * RATE)
    assert not np.array_equal(first, second)
    long = np.concatenate([wav, wav, wav])
    heard = [generator.speak(0.5, phones=PHONES, prompt=long[:n], sampling=FEW) for n in (3 * RATE, None)]
    assert np.array_equal(*heard)  # of a long one, what the model was trained on
    prompts = [None, wav[: int(0.5 * RATE)], wav]
    out = [generator.inpaint(wav, [(0.5, 0.8)], phones=PHONES, prompt=p, sampling=FEW) for p in prompts]
    assert not np.array_equal(out[0], out[1])
    assert not np.array_equal(out[1], out[2])


def test_an_edit_cuts_and_joins(generator, wav):
    plan = Edit("", PHONES, first=40, end=60, frames=30)
    out = generator.edit(wav, plan, sampling=FEW)
    assert len(out) == len(wav) + 10 * HOP
    fade = round(FADE * RATE)
    assert np.array_equal(out[: 40 * HOP - fade], wav[: 40 * HOP - fade])
    assert np.array_equal(out[70 * HOP + fade :], wav[60 * HOP + fade :])
    assert bool((out[40 * HOP : 70 * HOP] != 0).all())
    end = generator.edit(wav, Edit("", PHONES, 190, 200, 5), sampling=FEW)  # the last frame goes, which was not whole
    assert len(end) == 195 * HOP


def test_what_cannot_be_is_said(generator, wav, folder):
    with pytest.raises(InputError, match="the prompt is shorter than a latent frame"):
        generator.speak(1.0, phones=PHONES, prompt=wav[: HOP - 1], sampling=FEW)
    with pytest.raises(InputError, match="trained with prompts: give a recording of the voice"):
        generator.speak(1.0, phones=PHONES, sampling=FEW)
    with pytest.raises(InputError, match="shorter than a latent frame"):
        generator.speak(0.001, phones=PHONES, prompt=wav)
    with pytest.raises(InputError, match="not trained on the phone 'x'"):
        generator.inpaint(wav, [(0.5, 0.8)], phones=[("x", 0.1)])
    with pytest.raises(InputError, match="told phones, and the phones given is empty"):
        generator.inpaint(wav, [(0.5, 0.8)])
    spoilt = Generator.load(*saved_flow(folder / "spoilt"))
    spoilt.flow.network.leave.bias.data.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite: has its training diverged"):
        spoilt.inpaint(wav, [(0.5, 0.8)], sampling=FEW)
    silent = Generator.load(*saved_flow(folder / "none"))
    with pytest.raises(InputError, match="cannot be told what to say"):
        silent.speak(1.0, text="abc")


def test_checkpoints_that_do_not_belong_together(folder, wav):
    flow, codec = saved_flow(folder / "a", "characters")
    assert torch.equal(
        Generator.load(flow).flow.network.enter.weight, Generator.load(flow, codec).flow.network.enter.weight
    )
    saved_codec(folder / "other.ckpt", "none", seed=1)
    with pytest.raises(InputError, match="of another codec's latents"):
        Generator.load(flow, folder / "other.ckpt")
    with pytest.raises(CheckpointError, match="is no checkpoint of a flow"):
        Generator.load(codec, codec)
    with pytest.raises(CheckpointError, match="is no checkpoint of a codec"):
        Generator.load(flow, flow)
    with pytest.raises(CheckpointError, match="there is no checkpoint at nowhere"):
        Generator.load("nowhere")
    codec.rename(folder / "moved.ckpt")
    with pytest.raises(InputError, match="is not where it was: give its checkpoint, --ckpt PATH"):
        Generator.load(flow)
    assert Generator.load(flow, folder / "moved.ckpt").inpaint(wav, [(0.5, 0.8)], text="abc", sampling=FEW).any()
