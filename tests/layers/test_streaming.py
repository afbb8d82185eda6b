"""A stream gives the codes and the sound of the whole signal, whatever its chunks; what comes later changes nothing."""

import copy
import random

import pytest
import torch

from bench.common import full_mimi
from codec.decoders.istft import ISTFTDecoder
from codec.encoders.stft import STFTEncoder
from codec.model import Codec
from codec.quantizers.rvq import RVQ
from tests.helpers.codes import assert_codes_equal
from tests.helpers.parts import small_codec, small_mimi

HOP = 1920
OTHERS = (torch.int16, torch.float64, torch.float16)


@pytest.fixture(scope="module")
def mimi() -> Codec:
    return full_mimi()


@pytest.fixture(scope="module")
def fast(mimi) -> Codec:
    return copy.deepcopy(mimi).for_inference()


@pytest.fixture(scope="module")
def whole(mimi):
    """wav, and its latents, codes and decoded sound in one piece, with the layers that were trained."""
    wav = 0.3 * torch.randn(1, 1, 139 * HOP + 700, generator=torch.Generator().manual_seed(3))  # beyond 10 s of context
    padded = torch.nn.functional.pad(wav, (0, 140 * HOP - wav.shape[-1]))
    with torch.no_grad():  # the parts themselves: a codec would go in pieces
        latents = mimi.encoder(padded)
        codes = mimi.quantizer.encode(latents)
        return wav, latents, codes, mimi.decoder(mimi.quantizer.decode(codes))


def test_full_size_stream_equals_offline(fast, whole):
    """In chunks of 1 sample to several frames; codes but for ties, sound within 1e-4."""
    wav, latents, codes, sound = whole
    assert latents.std() > 0.05
    assert sound.std() > 0.01
    stream, sizes = fast.streaming(), [1, 1919, 100, 5000, HOP, 2 * HOP, 3]
    out, pieces = [], wav
    for size in sizes:
        out.append(stream.encode(pieces[..., :size], 24_000))
        pieces = pieces[..., size:]
    out += [stream.encode(pieces), stream.finish()]
    assert [c.shape[-1] for c in out[:4]] == [0, 1, 0, 2]
    found = torch.cat(out, -1)
    assert_codes_equal(found, codes, fast, latents)
    heard = torch.cat([stream.decode(c) for c in codes.split([1, 1, 3, 100, 5, 30], -1)], -1)
    torch.testing.assert_close(heard, sound, atol=1e-4, rtol=0)


def test_full_size_forms_agree(mimi, fast, whole):
    """Both forms, offline in pieces (no gradient) and in one, within 1e-4."""
    wav, latents, codes, sound = whole
    with torch.no_grad():
        for codec in (mimi, fast):
            torch.testing.assert_close(codec.latents(wav), latents, atol=1e-4, rtol=0)
            torch.testing.assert_close(codec.decode(codes), sound, atol=1e-4, rtol=0)


def test_full_size_latency(mimi, fast):
    """A frame's codes depend on nothing after its last sample, its sound on nothing after its codes."""
    assert fast.streaming().latency == HOP == 0.08 * 24_000
    wav = 0.3 * torch.randn(1, 1, 4 * HOP)
    changed = wav.clone()
    changed[..., 2 * HOP :] += 0.1
    with torch.no_grad():
        a, b = mimi.latents(wav), mimi.latents(changed)
        assert torch.equal(a[..., :2], b[..., :2])
        assert not torch.allclose(a[..., 2], b[..., 2])
        codes = torch.randint(0, 2048, (1, 8, 4))
        other = codes.clone()
        other[..., 2:] = (other[..., 2:] + 1) % 2048
        a, b = mimi.decode(codes), mimi.decode(other)
        assert torch.equal(a[..., : 2 * HOP], b[..., : 2 * HOP])
        assert not torch.allclose(a[..., 2 * HOP : 2 * HOP + 100], b[..., 2 * HOP : 2 * HOP + 100])


def trained(codec: Codec) -> Codec:
    with torch.no_grad():
        z = codec.latents(torch.randn(4, 1, 100 * codec.hop_length))
    codec.quantizer.train()(z)
    return codec.eval()


@pytest.mark.parametrize("make", [small_mimi, small_codec])
@pytest.mark.parametrize("seed", range(4))
def test_any_chunks(make, seed):
    """Random chunks over many windows of the transformers, on batches, for Mimi and for SEANet with an RVQ."""
    codec = trained(make())
    hop, rng = codec.hop_length, random.Random(seed)
    wav = torch.randn(2, 1, 90 * hop + 3)
    whole = codec.encode(wav).detach()
    stream, out, at = codec.streaming(), [], 0
    while at < wav.shape[-1]:
        size = rng.choice([1, 2, hop - 1, hop, 3 * hop + 1, 30 * hop])
        out.append(stream.encode(wav[..., at : at + size]))
        at += size
    out.append(stream.finish())
    assert_codes_equal(torch.cat(out, -1), whole, codec, codec.latents(wav).detach())
    sizes = []
    while sum(sizes) < 91:
        sizes.append(min(rng.choice([1, 2, 5, 40]), 91 - sum(sizes)))
    heard = torch.cat([stream.decode(c) for c in whole.split(sizes, -1)], -1)
    torch.testing.assert_close(heard, codec.decode(whole).detach(), atol=1e-4, rtol=0)


def test_streams_of_one_codec_do_not_meet_and_can_begin_anew():
    codec = trained(small_mimi()).for_inference()
    a, b = torch.randn(2, 1, 1, 5 * codec.hop_length)
    one, two = codec.streaming(), codec.streaming(n_q=2)
    codes = [(one.encode(x), two.encode(y)) for x, y in zip(a.split(16, -1), b.split(16, -1), strict=True)]
    alone = codec.encode(a), codec.encode(b, 2)
    for found, expected in zip(zip(*codes, strict=True), alone, strict=True):
        assert torch.equal(torch.cat(found, -1), expected)
    one.reset()
    assert torch.equal(one.encode(b), codec.encode(b))


def test_pieces_are_only_for_inference():
    """With a gradient the whole signal goes through at once, and gradients reach its beginning."""
    codec = small_mimi().eval()
    wav = torch.randn(1, 1, 500 * codec.hop_length, requires_grad=True)
    whole = codec.latents(wav)
    whole[..., 0].sum().backward()
    assert float(wav.grad.abs().sum()) > 0
    with torch.no_grad():
        torch.testing.assert_close(codec.latents(wav), whole.detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("inference", [False, True])
def test_unequal_lengths_as_one_by_one(inference):
    codec = trained(small_mimi())
    codec = codec.for_inference() if inference else codec
    wavs = [torch.randn(n) for n in (5, 16, 333, 1000)]
    with torch.no_grad():
        batch = codec.encode_batch(wavs, 3)
        for codes, wav in zip(batch, wavs, strict=True):
            alone = codec.encode(wav[None, None], 3)
            assert_codes_equal(codes[None], alone, codec, codec.latents(wav[None, None]))
        for wav, codes in zip(codec.decode_batch(batch), batch, strict=True):
            torch.testing.assert_close(wav, codec.decode(codes[None])[0, 0], atol=1e-5, rtol=0)


def test_unequal_lengths_through_parts_that_look_ahead():
    torch.manual_seed(0)
    sizes = dict(dim=8, hop_length=16, channels=8, hidden=16, blocks=1, split=2, overlap=4, kernel=3)
    codec = Codec(STFTEncoder(**sizes), RVQ(8, 100, 2, 16), ISTFTDecoder(**sizes), 1600, 100).eval()
    wavs = [torch.randn(n) for n in (100, 333)]
    with torch.no_grad():
        for codes, wav in zip(codec.encode_batch(wavs), wavs, strict=True):
            assert torch.equal(codes, codec.encode(wav[None, None])[0])
        codes = [codec.encode(wav[None, None])[0] for wav in wavs]
        for wav, one in zip(codec.decode_batch(codes), codes, strict=True):
            assert torch.equal(wav, codec.decode(one[None])[0, 0])
    with pytest.raises(ValueError, match="STFTEncoder looks ahead and cannot stream"):
        codec.streaming()


def test_low_precision_is_close():
    codec = trained(small_mimi())
    wav = torch.randn(1, 1, 50 * codec.hop_length)
    codes, sound = codec.encode(wav).detach(), codec(wav).wav.detach()
    low = copy.deepcopy(codec).for_inference(torch.bfloat16, torch.bfloat16)
    stream = low.streaming()
    assert stream.encode(wav).shape == codes.shape
    heard = stream.decode(codes)
    assert heard.dtype == torch.float32
    assert float((heard - sound).norm() / sound.norm()) < 0.05
    assert not torch.equal(heard, sound)


def test_the_callers_buffer_may_be_used_again():
    codec = trained(small_mimi())
    wav = torch.randn(1, 1, 100)
    stream, buffer, out = codec.streaming(), torch.empty(1, 1, 20), []
    for chunk in wav.split(20, -1):
        buffer.copy_(chunk)
        out.append(stream.encode(buffer))
        buffer.zero_()
    with torch.no_grad():
        assert torch.equal(torch.cat([*out, stream.finish()], -1), codec.encode(wav))


def test_form_for_inference_moves_and_does_not_train():
    codec = trained(small_mimi()).for_inference()
    moved = codec.to("meta")
    tensors = [*moved.parameters(), *moved.buffers()]
    assert all(t.device.type == "meta" for t in tensors)
    assert moved.quantizer.acoustic.half_norms.device.type == "meta"
    with pytest.raises(ValueError, match="cannot be trained: load it again"):
        codec.train()
    assert codec.eval() is codec


def test_long_audio_runs_in_pieces_where_nothing_wants_a_gradient(monkeypatch):
    codec, sizes = trained(small_mimi()).for_inference(), []
    step = type(codec.encoder).step
    monkeypatch.setattr(type(codec.encoder), "step", lambda self, x, s: sizes.append(x.shape[-1]) or step(self, x, s))
    assert torch.is_grad_enabled()
    codec.latents(torch.randn(1, 1, 500 * codec.hop_length))
    assert max(sizes) == 2 * codec.sample_rate


def test_bad_chunks_are_refused():
    codec = trained(small_mimi())
    stream = codec.streaming()
    with pytest.raises(ValueError, match="the chunk is at 8000 Hz and the codec at 1600: resample it"):
        stream.encode(torch.zeros(1, 1, 16), 8000)
    for chunk in (torch.zeros(16), torch.zeros(1, 2, 16), *(torch.zeros(1, 1, 16, dtype=d) for d in OTHERS)):
        with pytest.raises(ValueError, match=r"a chunk is \[B, 1, t\] float32"):
            stream.encode(chunk)
    with pytest.raises(ValueError, match="nothing was encoded"):
        stream.finish()
    wav = torch.randn(2, 1, codec.hop_length)
    stream.encode(wav[..., :5])
    with pytest.raises(ValueError, match="began with a batch of 2 and got 1"):
        stream.encode(torch.zeros(1, 1, 5))
    assert torch.equal(stream.encode(wav[..., 5:]), codec.encode(wav))  # refusals leave the stream as it was
    for codes in (torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match="codes are"):
            stream.decode(codes)
    with pytest.raises(ValueError, match="codes from 0 to 15, got 3 to 16"):
        stream.decode(torch.tensor([[[3, 16]]]))
    with pytest.raises(ValueError, match="has 4 codebooks"):
        stream.decode(torch.zeros(1, 5, 1, dtype=torch.int64))
    stream.reset()
    stream.decode(torch.zeros(1, 4, 1, dtype=torch.int16))
    with pytest.raises(ValueError, match="decoding began with a batch of 1 and got 2"):
        stream.decode(torch.zeros(2, 4, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="has 4 codebooks: choose 1 to 4"):
        codec.streaming(5)
