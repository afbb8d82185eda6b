"""A stream gives the codes and the audio of the whole signal, in chunks of any size, without look-ahead."""

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


@pytest.fixture(scope="module")
def mimi() -> Codec:
    """Full size, with a window of 40 frames at 25 Hz."""
    return full_mimi("encoder.transformer.context=40", "decoder.transformer.context=40")


@pytest.fixture(scope="module")
def whole(mimi):
    """wav, and its latents, codes and decoded audio in one piece, with the layers that are trained."""
    wav = 0.3 * torch.randn(1, 1, 29 * HOP + 700, generator=torch.Generator().manual_seed(3))  # beyond the window
    padded = torch.nn.functional.pad(wav, (0, 30 * HOP - wav.shape[-1]))
    with torch.no_grad():  # by the parts: the codec would run in pieces
        latents = mimi.encoder(padded)
        codes = mimi.quantizer.encode(latents)
        return wav, latents, codes, mimi.decoder(mimi.quantizer.decode(codes))


def test_full_size_forms_and_streams_equal_offline(mimi, whole):
    """Trained form in pieces, inference form, and streams in chunks of 1 sample to several frames: codes are equal but
    for ties, audio within 1e-4."""
    wav, latents, codes, audio = whole
    assert latents.std() > 0.05
    assert audio.std() > 0.01
    fast = copy.deepcopy(mimi).for_inference()
    with torch.no_grad():
        for codec in (mimi, fast):
            torch.testing.assert_close(codec.latents(wav), latents, atol=1e-4, rtol=0)
            torch.testing.assert_close(codec.decode(codes), audio, atol=1e-4, rtol=0)
    stream, sizes = fast.streaming(), [1, 1919, 100, 5000, HOP, 2 * HOP, 3]
    out = [stream.encode(chunk, 24_000) for chunk in wav.split([*sizes, wav.shape[-1] - sum(sizes)], -1)]
    assert [c.shape[-1] for c in out[:4]] == [0, 1, 0, 2]
    assert_codes_equal(torch.cat([*out, stream.finish()], -1), codes, fast, latents)
    decoded = torch.cat([stream.decode(c) for c in codes.split([1, 1, 3, 20, 5], -1)], -1)
    torch.testing.assert_close(decoded, audio, atol=1e-4, rtol=0)


def test_full_size_latency_is_one_frame(mimi):
    """Codes of a frame depend on nothing after its last sample, its audio on nothing after its codes."""
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


@pytest.fixture
def small() -> Codec:
    return trained(small_mimi())


@pytest.mark.parametrize("make", [small_mimi, small_codec])
@pytest.mark.parametrize("seed", range(3))
def test_any_chunks(make, seed):
    """Random chunks over many attention windows, in batches, for Mimi and for SEANet with an RVQ."""
    codec = trained(make())
    hop, rng = codec.hop_length, random.Random(seed)
    wav = torch.randn(2, 1, 90 * hop + 3)
    whole = codec.encode(wav).detach()
    stream, out, at = codec.streaming(), [], 0
    assert stream.latency == hop
    while at < wav.shape[-1]:
        size = rng.choice([1, 2, hop - 1, hop, 3 * hop + 1, 30 * hop])
        out.append(stream.encode(wav[..., at : at + size]))
        at += size
    out.append(stream.finish())
    assert_codes_equal(torch.cat(out, -1), whole, codec, codec.latents(wav).detach())
    sizes = []
    while sum(sizes) < 91:
        sizes.append(min(rng.choice([1, 2, 5, 40]), 91 - sum(sizes)))
    decoded = torch.cat([stream.decode(c) for c in whole.split(sizes, -1)], -1)
    torch.testing.assert_close(decoded, codec.decode(whole).detach(), atol=1e-4, rtol=0)


def test_streams_are_independent_restart_and_copy_their_input(small):
    codec = small.for_inference()
    a, b = torch.randn(2, 1, 1, 5 * codec.hop_length)
    one, two, buffer = codec.streaming(), codec.streaming(n_q=2), torch.empty(1, 1, 20)
    codes = []
    for x, y in zip(a.split(20, -1), b.split(20, -1), strict=True):
        buffer.copy_(x)
        codes.append((one.encode(buffer), two.encode(y)))
        buffer.zero_()
    for found, expected in zip(zip(*codes, strict=True), (codec.encode(a), codec.encode(b, 2)), strict=True):
        assert torch.equal(torch.cat(found, -1), expected)
    one.reset()
    assert torch.equal(one.encode(b), codec.encode(b))


def test_long_audio_runs_in_pieces_unless_a_gradient_is_needed(small, monkeypatch):
    wav = torch.randn(1, 1, 500 * small.hop_length, requires_grad=True)
    whole = small.latents(wav)
    whole[..., 0].sum().backward()
    assert float(wav.grad.abs().sum()) > 0
    sizes, step = [], type(small.encoder).step
    monkeypatch.setattr(type(small.encoder), "step", lambda self, x, s: sizes.append(x.shape[-1]) or step(self, x, s))
    with torch.no_grad():
        torch.testing.assert_close(small.latents(wav), whole.detach(), atol=1e-4, rtol=0)
    assert max(sizes) == 2 * small.sample_rate


@pytest.mark.parametrize("inference", [False, True])
def test_batches_of_unequal_lengths_equal_one_by_one(small, inference):
    codec = small.for_inference() if inference else small
    wavs = [torch.randn(n) for n in (5, 16, 333, 1000)]
    with torch.no_grad():
        batch = codec.encode_batch(wavs, 3)
        for codes, wav in zip(batch, wavs, strict=True):
            alone = codec.encode(wav[None, None], 3)
            assert_codes_equal(codes[None], alone, codec, codec.latents(wav[None, None]))
        for wav, codes in zip(codec.decode_batch(batch), batch, strict=True):
            torch.testing.assert_close(wav, codec.decode(codes[None])[0, 0], atol=1e-5, rtol=0)


def test_parts_that_look_ahead_take_batches_and_do_not_stream():
    torch.manual_seed(0)
    sizes = dict(dim=8, hop_length=16, channels=8, hidden=16, blocks=1, split=2, overlap=4, kernel=3)
    codec = Codec(STFTEncoder(**sizes), RVQ(8, 100, 2, 16), ISTFTDecoder(**sizes), 1600, 100).eval()
    wavs = [torch.randn(n) for n in (100, 333)]
    with torch.no_grad():
        codes = codec.encode_batch(wavs)
        for one, wav in zip(codes, wavs, strict=True):
            assert torch.equal(one, codec.encode(wav[None, None])[0])
        for wav, one in zip(codec.decode_batch(codes), codes, strict=True):
            assert torch.equal(wav, codec.decode(one[None])[0, 0])
    with pytest.raises(ValueError, match="STFTEncoder looks ahead and cannot stream"):
        codec.streaming()
    with pytest.raises(ValueError, match="STFTEncoder looks ahead and stays in float32"):
        codec.for_inference(torch.bfloat16)


def test_reduced_precision_is_close(small):
    wav = torch.randn(1, 1, 50 * small.hop_length)
    codes, audio = small.encode(wav).detach(), small(wav).wav.detach()
    stream = small.for_inference(torch.bfloat16, torch.bfloat16).streaming()
    assert stream.encode(wav).shape == codes.shape
    decoded = stream.decode(codes)
    assert decoded.dtype == torch.float32
    assert 0 < float((decoded - audio).norm() / audio.norm()) < 0.05


def test_form_for_inference_moves_and_does_not_train(small):
    moved = small.for_inference().to("meta")
    assert all(t.device.type == "meta" for t in [*moved.parameters(), *moved.buffers()])
    assert moved.quantizer.acoustic.half_norms.device.type == "meta"
    with pytest.raises(ValueError, match="cannot be trained: load it again"):
        moved.train()


def test_bad_chunks_are_refused_and_leave_the_stream_unchanged(small):
    stream = small.streaming()
    with pytest.raises(ValueError, match="resample it"):
        stream.encode(torch.zeros(1, 1, 16), 8000)
    for dtype in (torch.int16, torch.float64, torch.float16):
        with pytest.raises(ValueError, match=r"\[B, 1, t\] float32"):
            stream.encode(torch.zeros(1, 1, 16, dtype=dtype))
    for shape in ((16,), (1, 2, 16)):
        with pytest.raises(ValueError, match=r"\[B, 1, t\] float32"):
            stream.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match="nothing was encoded"):
        stream.finish()
    wav = torch.randn(2, 1, small.hop_length)
    stream.encode(wav[..., :5])
    with pytest.raises(ValueError, match="encoding began with a batch of 2"):
        stream.encode(torch.zeros(1, 1, 5))
    assert torch.equal(stream.encode(wav[..., 5:]), small.encode(wav))
    for codes in (torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match="codes are"):
            stream.decode(codes)
    with pytest.raises(ValueError, match="codes from 0 to 15, got 3 to 16"):
        stream.decode(torch.tensor([[[3, 16]]]))
    for call in (lambda: stream.decode(torch.zeros(1, 5, 1, dtype=torch.int64)), lambda: small.streaming(5)):
        with pytest.raises(ValueError, match="has 4 codebooks"):
            call()
    stream.reset()
    stream.decode(torch.zeros(1, 4, 1, dtype=torch.int16))
    with pytest.raises(ValueError, match="decoding began with a batch of 1"):
        stream.decode(torch.zeros(2, 4, 1, dtype=torch.int64))
