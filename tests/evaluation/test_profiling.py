"""Operations against sums by hand, and the look-ahead that parts declare against gradients."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize
from hydra.utils import instantiate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from codec.decoders.base import Decoder
from codec.decoders.istft import ISTFTDecoder
from codec.encoders.stft import STFTEncoder
from codec.evaluation.profiling import algorithmic_delay, device_name, gflop_per_second, real_time_factors
from codec.model import Codec
from codec.quantizers.fsq import FSQ
from codec.quantizers.none import NoQuantizer
from codec.quantizers.rvq import RVQ
from tests.helpers.parts import small_codec, small_mimi

CONF = Path(__file__).parents[2] / "conf"
OPTIONS = [f"{group}={f.stem}" for group in ("encoder", "decoder", "quantizer") for f in (CONF / group).glob("*.yaml")]


def spectral(stft: dict | None = None, istft: dict | None = None) -> Codec:
    """A codec at 800 Hz with hop 16 (50 frames per second) on spectra of 2 frames of hop 8, n_fft 32, each."""
    torch.manual_seed(0)
    options = dict(dim=8, hop_length=16, channels=8, hidden=16, blocks=1, split=2, overlap=4, kernel=3)
    encoder, decoder = STFTEncoder(**options | (stft or {})), ISTFTDecoder(**options | (istft or {}))
    return Codec(encoder, NoQuantizer(8, 50), decoder, 800, 50).eval()


def composed(*overrides: str) -> Codec:
    """A codec of conf/, without weights."""
    with initialize(version_base="1.3", config_path="../../conf"):
        cfg = compose("train", overrides=list(overrides))
    with torch.device("meta"):
        return instantiate(cfg.codec, _convert_="all")


def by_hand(lstm: int) -> int:
    """FLOP per latent frame of SMALL's encoder, layer by layer: 2 * in * out * kernel * outputs per frame."""
    layers = [(1, 4, 7, 8)]
    for channels, stride, outputs in ((4, 2, 8), (8, 4, 4)):
        layers += [(channels, channels // 2, 3, outputs), (channels // 2, channels, 1, outputs)] * 2
        layers += [(channels, 2 * channels, 2 * stride, outputs // stride)]
    layers += [(16, 8, 3, 1)] + [(16, 4 * 16, 1, 1), (16, 4 * 16, 1, 1)] * lstm
    return sum(2 * inputs * outputs * kernel * count for inputs, outputs, kernel, count in layers)


@pytest.mark.parametrize("lstm", [0, 2])
def test_a_convolution_and_an_lstm_cost_what_they_cost_on_paper(lstm):
    codec = small_codec(NoQuantizer(8, 100), lstm=lstm).train()
    weights, state = [p.clone() for p in codec.parameters()], torch.get_rng_state()
    found = gflop_per_second(codec)
    assert found["encode"] == pytest.approx(by_hand(lstm) * 100 / 1e9)
    assert torch.equal(state, torch.get_rng_state())  # counting changes neither the random numbers nor the codec
    assert codec.training
    assert all(p.requires_grad and torch.equal(p, w) for p, w in zip(codec.parameters(), weights, strict=True))
    assert gflop_per_second(codec.eval().for_inference()) == pytest.approx(found)


@pytest.mark.parametrize("n_q", [1, 3])
def test_the_search_costs_a_product_with_each_codebook(n_q):
    bare, codec = (gflop_per_second(small_codec(q), n) for q, n in ((NoQuantizer(8, 100), None), (None, n_q)))
    assert codec["encode"] - bare["encode"] == pytest.approx(2 * 8 * 16 * n_q * 100 / 1e9)
    assert codec["decode"] == bare["decode"]


@pytest.mark.parametrize("quantizer", [RVQ(8, 100, n_q=3, codebook_size=16), FSQ(8, 100, [4, 4], 2)])
def test_it_is_what_a_real_clip_costs(quantizer):
    codec, samples = small_codec(quantizer), 8 * 250  # in pieces of 200 frames
    found = gflop_per_second(codec)
    with torch.no_grad():
        wav = torch.randn(1, 1, samples)
        for side, call, x in (("encode", codec.encode, wav), ("decode", codec.decode, codec.encode(wav))):
            with FlopCounterMode(display=False) as counter:
                call(x)
            assert found[side] == pytest.approx(counter.get_total_flops() * 800 / samples / 1e9)
    assert gflop_per_second(spectral(), seconds=1.0) == pytest.approx(gflop_per_second(spectral()))


def test_mimi_at_its_size():
    codec = composed("model=mimi_transformer")
    rate, convolutions = 24_000, 0
    for conv in (m for m in codec.encoder.modules() if isinstance(m, nn.Conv1d)):  # in the order of the signal
        rate /= conv.stride[0]
        convolutions += 2 * conv.weight.numel() * rate
    assert rate == 12.5
    products = 2 * 25 * sum(p.numel() for p in codec.encoder.transformer.parameters() if p.ndim == 2)
    attention = 8 * 2 * 2 * 512 * 251 * 25  # layers, two products of two operations, channels, keys, Hz
    search = 12.5 * (2 * 2 * 512 * 256 + 8 * 2 * 256 * 2048)  # two projections, eight codebooks
    found = gflop_per_second(codec)
    assert found["encode"] == pytest.approx((convolutions + products + attention + search) / 1e9)
    assert found["encode"] + found["decode"] == pytest.approx(11.02, abs=0.01)


def parts() -> list[nn.Module]:
    changes = {"kernel": 5, "blocks": 2, "overlap": 2}, {"causal": True}
    made = [small_codec(lstm=1), small_mimi(), spectral(), *(spectral(change, change) for change in changes)]
    return [part.eval() for codec in made for part in (codec.encoder, codec.decoder)]


@pytest.mark.parametrize("part", parts(), ids=lambda part: type(part).__name__)
def test_declared_lookahead_is_that_of_the_gradient(part):
    frames, middle, hop, generator = 60, 30, part.hop_length, torch.Generator().manual_seed(0)
    shape = (1, part.dim, frames) if isinstance(part, Decoder) else (1, 1, frames * hop)
    x = torch.randn(shape, generator=generator, requires_grad=True)
    y = part(x)
    y = y * torch.randn(y.shape, generator=generator)
    gradient = lambda chosen: torch.autograd.grad(chosen.sum(), x, retain_graph=True)[0]  # noqa: E731
    if isinstance(part, Decoder):
        first = middle * hop - part.lookahead
        assert gradient(y[..., first])[..., middle].any()
        assert not gradient(y[..., :first])[..., middle].any()
    else:
        end = (middle + 1) * hop + part.lookahead
        assert gradient(y[..., middle])[..., end - 1].any()
        assert not gradient(y[..., middle])[..., end:].any()


def test_delay_is_a_frame_and_the_lookahead_of_both_parts():
    assert algorithmic_delay(small_codec()) == 1 / 100
    codec = spectral()  # hop 8 between windows of 32: 12 samples to each side, less the first, which has no weight
    assert algorithmic_delay(codec) * 800 == pytest.approx(16 + (12 + 8) + (12 + 8 + 16 - 1))
    codec.decoder.lookahead = None  # the whole clip
    assert algorithmic_delay(codec) is None


@pytest.mark.parametrize("codec", [small_codec(), spectral()], ids=["codes", "continuous"])
def test_real_time_factors_say_where(codec):
    found = real_time_factors(codec, seconds=0.1, repeats=2)
    assert min(found["rtf_encode"], found["rtf_decode"]) > 0
    assert found["device"] == device_name(torch.device("cpu")) != ""
    assert (found["threads"], found["seconds"]) == (torch.get_num_threads(), 0.1)
    for call in (gflop_per_second, real_time_factors):
        with pytest.raises(ValueError, match="has 3 codebooks"):
            call(small_codec(), 4)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_can_be_counted(option):
    fitting = {"encoder": "decoder=istft", "decoder": "encoder=stft", "quantizer": "encoder=stft"}
    small = ["latent_dim=64", "channels=4", "transformer_layers=1", "transformer_hidden=64"]
    assert min(gflop_per_second(composed(option, fitting[option.partition("=")[0]], *small)).values()) > 0
