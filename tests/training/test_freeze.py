"""Frozen parts of a codec stay equal to the bit, and cost no gradient."""

import copy

import pytest
import torch

from codec.decoders.lyra import LyraDecoder
from codec.encoders.lyra import LyraEncoder
from codec.model import Codec
from codec.quantizers.rvq import RVQ
from codec.training.callbacks.ema import EMA
from codec.utils.errors import InputError
from tests.helpers.parts import small_codec, small_mimi, tone_batch
from tests.helpers.training import T, fit, small_task


def small_lyra() -> Codec:
    torch.manual_seed(0)
    sizes = dict(dim=8, channels=8, strides=[4, 2], group_width=4, latent_groups=2)
    quantizer = RVQ(8, 100, n_q=4, codebook_size=8, kmeans_iters=2)
    return Codec(LyraEncoder(**sizes), quantizer, LyraDecoder(**sizes), 800, 100)


def trained(make) -> Codec:
    """A codec whose codebooks are initialised."""
    codec = make()
    codec.train()(tone_batch(2, T))
    return codec


@pytest.mark.parametrize("make", [small_lyra, small_mimi])
def test_codes_and_latents_stay_equal_to_the_bit(make):
    codec = trained(make)
    before, wav = copy.deepcopy(codec).eval(), tone_batch(2, T, seed=9)
    ema = EMA(0.9)
    task = small_task(codec=codec, freeze=["encoder", "quantizer"])
    fit(task, 3, callbacks=[ema])
    after, old = task.codec.eval().state_dict(), before.state_dict()
    changed = {name for name in old if isinstance(old[name], torch.Tensor) and not torch.equal(old[name], after[name])}
    assert changed
    assert {name.partition(".")[0] for name in changed} == {"decoder"}
    assert all(after[name] == value for name, value in old.items() if not isinstance(value, torch.Tensor))  # steps
    assert {name.partition(".")[0] for name in ema.average} == {"decoder"}
    with torch.no_grad():
        assert torch.equal(task.codec.latents(wav), before.latents(wav))
        assert torch.equal(task.codec.encode(wav), before.encode(wav))
    out = task.codec.train()(wav)
    assert not out.latents.requires_grad  # no graph of the encoder
    assert out.wav.requires_grad


def test_an_encoder_learns_with_its_codebooks_frozen():
    codec = trained(small_lyra)
    task = small_task(codec=codec, freeze=["quantizer", "decoder"])
    total, values = task.one_pass(tone_batch(2, T))
    total.backward()
    assert values["commitment"] > 0
    assert all(p.grad.abs().sum() > 0 for p in codec.encoder.parameters() if p.ndim > 1)
    assert all(p.grad is None for p in codec.decoder.parameters())
    books = codec.quantizer.codebooks.clone()
    fit(task, 2)
    assert torch.equal(codec.quantizer.codebooks, books)


@pytest.mark.parametrize(
    ("freeze", "word"),
    [(["encoder", "quantizer", "decoder"], "fewer"), (["encoders"], "list"), ("encoder", "list")],
)
def test_what_cannot_be_frozen_is_refused(freeze, word):
    with pytest.raises(InputError, match=word):
        small_task(codec=small_codec(), freeze=freeze)
