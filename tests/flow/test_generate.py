"""A small flow model on a small codec, from recording to recording."""

import numpy as np
import pytest
import torch

from codec.checkpoints.load import CheckpointError
from codec.flow.editing import Edit
from codec.flow.generate import FADE, Generator, crossfade
from codec.flow.sampler import Sampling
from codec.utils.errors import InputError
from tests.helpers.flow_checkpoints import saved_flow
from tests.helpers.flow_parts import HOP, RATE
from tests.helpers.signals import speechlike

FEW = Sampling(steps=2)
PHONES = [("a", 0.1), ("b", 0.6), ("_", 1.5)]


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Generator:
    flow, _ = saved_flow(tmp_path_factory.mktemp("flow"), "aligned_phones", "prompt", seconds=1.0)
    return Generator.load(flow)


@pytest.fixture(scope="module")
def wav() -> np.ndarray:
    return speechlike(2.0, RATE, 0).astype(np.float32)[:-3]  # the last frame is not whole


def test_samples_outside_of_spans_are_those_of_the_recording(generator, wav):
    """Two spans in a recording that is longer than the examples of training."""
    spans = [(0.5, 0.8), (1.7, 1.75)]
    out = generator.inpaint(wav, spans, phones=PHONES, sampling=FEW)
    assert out.shape == wav.shape
    assert out.dtype == np.float32
    inside, fade = np.zeros(len(wav), bool), round(FADE * RATE)
    near = inside.copy()
    for start, end in spans:
        inside[round(start * RATE) : round(end * RATE)] = True
        near[round(start * RATE) - fade : round(end * RATE) + fade] = True
    assert np.array_equal(out[~near], wav[~near])
    assert (out[inside] != wav[inside]).mean() > 0.9
    assert generator.inpaint(wav, spans, phones=PHONES, sampling=FEW).tobytes() == out.tobytes()
    other = generator.inpaint(wav, spans, phones=PHONES, sampling=Sampling(steps=2, seed=1))
    assert not np.array_equal(other[inside], out[inside])
    decoded = generator.inpaint(wav, spans, phones=PHONES, sampling=FEW, resynthesise=True)
    assert np.array_equal(decoded[inside], out[inside])
    assert not np.array_equal(decoded[~near], wav[~near])


def test_the_crossfade_is_continuous():
    new = np.zeros(100, bool)
    new[40:60] = new[63:70] = new[98:] = True
    share = crossfade(np.zeros(100, np.float32), np.ones(100, np.float32), new, 9)
    assert np.array_equal(share == 1, new)
    assert not share[:31].any()
    assert np.abs(np.diff(share)).max() == pytest.approx(0.1)
    assert np.array_equal(crossfade(np.ones(5), np.zeros(5), np.zeros(5, bool), 3), np.ones(5))


def test_speech_depends_on_the_prompt(generator, wav):
    prompts = [speechlike(1.0, RATE, n).astype(np.float32) for n in (1, 2)]
    first, second = (generator.speak(1.503, phones=PHONES, prompt=prompt, sampling=FEW) for prompt in prompts)
    assert len(first) == round(1.503 * RATE)
    assert not np.array_equal(first, second)
    long = np.concatenate([wav, wav])
    assert np.array_equal(  # of a long one, as much as in training
        *(generator.speak(0.5, phones=PHONES, prompt=long[:n], sampling=FEW) for n in (3 * RATE, None))
    )
    prompts = [None, wav[: int(0.5 * RATE)], wav]
    out = [generator.inpaint(wav, [(0.5, 0.8)], phones=PHONES, prompt=p, sampling=FEW) for p in prompts]
    assert not np.array_equal(out[0], out[1])
    assert not np.array_equal(out[1], out[2])


def test_an_edit_removes_frames_and_inserts_others(generator, wav):
    out = generator.edit(wav, Edit("", PHONES, first=40, end=60, frames=30), sampling=FEW)
    assert len(out) == len(wav) + 10 * HOP
    fade = round(FADE * RATE)
    assert np.array_equal(out[: 40 * HOP - fade], wav[: 40 * HOP - fade])
    assert np.array_equal(out[70 * HOP + fade :], wav[60 * HOP + fade :])
    assert bool((out[40 * HOP : 70 * HOP] != 0).all())
    end = generator.edit(wav, Edit("", PHONES, 190, 200, 5), sampling=FEW)  # of the last frame, which is not whole
    assert len(end) == 195 * HOP


def test_a_checkpoint_names_its_codec_and_another_path_can_be_given(tmp_path, wav):
    flow, codec = saved_flow(tmp_path)
    content = torch.load(flow, weights_only=True)
    content["config"]["codec"] = content["config"].pop("codec_ckpt")  # its former name
    torch.save(content, flow)
    named = Generator.load(flow)
    with pytest.raises(CheckpointError, match="no checkpoint at nowhere"):
        Generator.load("nowhere")
    codec.rename(tmp_path / "moved.ckpt")
    with pytest.raises(InputError, match="--codec-ckpt PATH"):
        Generator.load(flow)
    given = Generator.load(flow, tmp_path / "moved.ckpt")
    out = [each.inpaint(wav, [(0.5, 0.8)], sampling=FEW) for each in (named, given)]
    assert np.array_equal(*out)
    given.flow.network.leave.bias.data.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        given.inpaint(wav, [(0.5, 0.8)], sampling=FEW)
