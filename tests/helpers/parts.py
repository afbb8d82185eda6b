"""Small parts for tests: built in milliseconds, structured like the real ones."""

import torch
from torch import Tensor, nn

from codec.decoders.mimi import MimiDecoder
from codec.decoders.seanet import SEANetDecoder
from codec.encoders.mimi import MimiEncoder
from codec.encoders.seanet import SEANetEncoder
from codec.layers.seanet import ResidualUnits
from codec.layers.transformer import Transformer
from codec.model import Codec
from codec.quantizers.base import Quantizer
from codec.quantizers.fsq import FSQ
from codec.quantizers.rvq import RVQ
from codec.quantizers.split_rvq import SplitRVQ

MIMI = dict(dim=512, channels=64, strides=[4, 5, 6, 8], units=ResidualUnits((1,), 3, 2), last_kernel=3)
ENCODEC = dict(
    dim=128, channels=32, strides=[2, 4, 5, 8], units=ResidualUnits((1,), 3, 2, "conv"), last_kernel=7, lstm=2
)
SMALL = dict(dim=8, channels=4, strides=[2, 4], units=ResidualUnits((1, 3), 3, 2))


def small_codec(quantizer: Quantizer | None = None, seed: int = 0, **changes) -> Codec:
    """A codec at 800 Hz with hop 8 (100 frames per second), a few thousand parameters."""
    torch.manual_seed(seed)
    options = SMALL | changes
    quantizer = quantizer or RVQ(8, 100, n_q=3, codebook_size=16, dropout=0.0)
    return Codec(SEANetEncoder(**options), quantizer, SEANetDecoder(**options), 800, 100)


def small_mimi(seed: int = 0, layers: int = 2, **changes) -> Codec:
    """Mimi's structure at 1,600 Hz with hop 16 (100 frames per second) and windows of 10 frames."""
    torch.manual_seed(seed)
    sizes = dict(layers=layers, heads=2, hidden=16, context=10, scale=0.3)
    encoder = MimiEncoder(SEANetEncoder(**SMALL), Transformer(8, **sizes))
    decoder = MimiDecoder(SEANetDecoder(**SMALL), Transformer(8, **sizes))
    options = dict(n_q=4, codebook_size=16, codebook_dim=4, kmeans_iters=5) | changes
    return Codec(encoder, SplitRVQ(8, 100, **options), decoder, 1600, 100)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def tone_batch(batch: int, samples: int, seed: int = 0) -> Tensor:
    """``[B, 1, T]`` sums of three slowly modulated sines and a little noise, peak about 0.5."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(samples)[None, None]
    period = torch.rand(batch, 3, 1, generator=generator) * 60 + 8
    envelope = 0.6 + 0.4 * torch.sin(2 * torch.pi * t / (20 * period))
    wav = (envelope * torch.sin(2 * torch.pi * t / period)).mean(1, keepdim=True)
    return 0.5 * wav + 0.01 * torch.randn(wav.shape, generator=generator)


def streamed(layer: nn.Module, x: Tensor, chunks: list[int], stride: int = 1) -> Tensor:
    """``layer`` applied step by step to chunks of x, given in units of ``stride``."""
    state, out = None, []
    for piece in x.split([n * stride for n in chunks], dim=-1):
        y, state = layer.step(piece, state)
        out.append(y)
    return torch.cat(out, -1)


def changed_outputs(layer: nn.Module, x: Tensor, start: int) -> Tensor:
    """Indices of the outputs of ``layer`` that change when its inputs from ``start`` on do."""
    changed = x.clone()
    changed[..., start:] += torch.randn_like(x[..., start:])
    with torch.no_grad():
        return (layer(changed) != layer(x)).flatten(0, -2).any(0).nonzero()[:, 0]


@torch.no_grad()
def unquantized(quantizer: Quantizer, z: Tensor) -> Tensor:
    """The decoder's input for a sequence that is not quantized, by the quantizer's own forward pass."""
    if isinstance(quantizer, FSQ):  # has no such path: the forward pass without rounding
        return quantizer.project_out(torch.tanh(quantizer.project_in(z)))
    if not quantizer.n_q:
        return quantizer(z).z
    quantizer.quantization_rate = 0.0
    found = quantizer.train()(z).z
    quantizer.eval()
    return found
