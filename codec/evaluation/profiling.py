"""What a codec costs: operations and seconds of computing per second of audio, and the delay that it cannot go below.

Operations and delay belong to the codec and are the same everywhere; the real-time factors belong to a machine.
"""

import copy
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from codec.model import Codec

aten = torch.ops.aten


def gflop_per_second(codec: Codec, n_q: int | None = None, seconds: float = 4.0) -> dict[str, float]:
    """GFLOP per second of audio -> ``{"encode": ..., "decode": ...}``, with the first ``n_q`` codebooks (None: all).

    A multiplication and an addition are 2 FLOP: half of it is GMAC/s. Counted are convolutions, matrix products, LSTMs,
    attention and the search for the nearest codes; not counted are FFTs, and what works on each number by itself
    (activations, norms, weight norm). A part that can stream is counted at one more frame of a long stream: what the
    piece length of :class:`Codec` adds to attention is no part of it, and every frame attends to its whole context. A
    part that looks ahead is counted on a clip of ``seconds``. Nothing is computed: the tensors have shapes only.

    Raises:
        ValueError: if there are fewer than ``n_q`` codebooks.
    """
    n_q = codec.quantizer.check_n_q(n_q)
    frames = max(1, round(seconds * codec.frame_rate))
    # attention is counted as the two matrix products that it is, masked places of them too
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        ghost = _shapes_of(codec)
        encode = _per_frame(ghost.encoder, lambda f: torch.empty(1, 1, f * codec.hop_length), frames)
        decode = _per_frame(ghost.decoder, lambda f: torch.empty(1, codec.quantizer.dim, f), frames)
        if n_q:
            z = torch.empty(1, codec.quantizer.dim, frames)
            encode += _flop(lambda: ghost.quantizer.encode(z, n_q)) / frames
            codes = torch.empty(1, n_q, frames, dtype=torch.int64)
            decode += _flop(lambda: ghost.quantizer.decode(codes)) / frames
        else:
            z, x = (torch.empty(1, channels, frames) for channels in (codec.quantizer.dim, codec.quantizer.latent_dim))
            encode += _flop(lambda: ghost.quantizer.to_latents(z)) / frames
            decode += _flop(lambda: ghost.quantizer.from_latents(x)) / frames
    return {"encode": encode * codec.frame_rate / 1e9, "decode": decode * codec.frame_rate / 1e9}


def algorithmic_delay(codec: Codec) -> float | None:
    """Seconds between a sample and the moment at which its decoded form can be known on an infinitely fast machine.

    One frame, which is complete with its last sample only, plus the look-ahead. That of a part that can stream is zero
    (:attr:`Codec.causal`); that of others is measured, by gradients, through a copy with random weights: how far behind
    the end of its frame a latent still hears the sound, and how far before the beginning of its frame it is heard in
    the output. Both parts are taken to treat all frames alike. None: a part depends on the whole clip, at least where
    that has 8 s or fewer than 32 frames.
    """
    ahead = 0
    for part, measure in ((codec.encoder, _heard_after), (codec.decoder, _heard_before)):
        if hasattr(part, "step"):
            continue
        samples = _look_ahead(part, measure, codec)
        if samples is None:
            return None
        ahead += samples
    return (codec.hop_length + ahead) / codec.sample_rate


@torch.inference_mode()
def real_time_factors(
    codec: Codec, n_q: int | None = None, seconds: float = 10.0, repeats: int = 5
) -> dict[str, float | int | str]:
    """Seconds of computing per second of audio, on the device of the codec: under 1 is faster than real time.

    One clip of noise of ``seconds``, in the codec's present form (see :meth:`Codec.for_inference`): the median of
    ``repeats`` after a warm-up -> ``rtf_encode``, ``rtf_decode``, ``device`` (its name), ``threads`` (of the CPU),
    ``seconds``. Some say real-time factor for the inverse, how many times real time.

    Raises:
        ValueError: if there are fewer than ``n_q`` codebooks.
    """
    n_q = codec.quantizer.check_n_q(n_q)
    device = _device(codec)
    noise = torch.randn(1, 1, round(seconds * codec.sample_rate), generator=torch.Generator().manual_seed(0))
    wav = (0.1 * noise).to(device)
    encode, decode = (lambda x: codec.encode(x, n_q)), codec.decode
    if not n_q:
        encode = lambda x: codec.quantizer.to_latents(codec.latents(x))  # noqa: E731
        decode = lambda x: codec.decode_latents(codec.quantizer.from_latents(x))  # noqa: E731
    codes, spent = encode(wav), {"rtf_encode": [], "rtf_decode": []}
    decode(codes)
    for _ in range(repeats):
        for name, call, x in (("rtf_encode", encode, wav), ("rtf_decode", decode, codes)):
            _wait(device)
            start = time.perf_counter()
            call(x)
            _wait(device)
            spent[name].append(time.perf_counter() - start)
    factors = {name: statistics.median(values) * codec.sample_rate / wav.shape[-1] for name, values in spent.items()}
    return factors | {"device": device_name(device), "threads": torch.get_num_threads(), "seconds": seconds}


def device_name(device: torch.device) -> str:
    """What the maker calls it, as far as the system knows."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() if device.type == "cpu" else str(device)


def _device(codec: Codec) -> torch.device:
    return next(codec.parameters(), torch.empty(0)).device


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _shapes_of(codec: Codec) -> Codec:
    """A copy, on the CPU, whose tensors are made anew: within FakeTensorMode they have shapes and no data."""
    tensors = [*codec.parameters(), *codec.buffers()]
    return copy.deepcopy(codec, {id(t): torch.empty(t.shape, dtype=t.dtype) for t in tensors})


def _per_frame(part: nn.Module, make: Callable[[int], Tensor], frames: int) -> float:
    """FLOP per latent frame of an encoder or decoder, whose input for so many frames ``make`` makes."""
    if not hasattr(part, "step"):
        x = make(frames)
        return _flop(lambda: part(x)) / frames
    _, state = part.step(make(1))
    x = make(1)
    return _flop(lambda: part.step(x, state))


def _flop(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN) as counter:
        call()
    return counter.get_total_flops()


def _lstm_layer(x, w_input, w_hidden, *args, out_shape=None, **kwargs) -> int:
    """x ``[F, B, C]``, both weights ``[4 H, ...]``, as shapes."""
    return 2 * x[0] * x[1] * (w_input[0] * w_input[1] + w_hidden[0] * w_hidden[1])


def _added_product(total, a, b, out_shape=None, **kwargs) -> int:
    """a ``[..., N, C]``, b ``[..., C, C']``, as shapes."""
    return 2 * math.prod(a) * b[-1]


# what the counter of torch does not know: LSTMs on a CPU, and products that are added in place
UNKNOWN = {
    aten.mkldnn_rnn_layer: _lstm_layer,
    aten.addmm_: _added_product,
    aten.baddbmm_: _added_product,
}


def _look_ahead(part: nn.Module, measure: Callable[[nn.Module, int, Codec], int | None], codec: Codec) -> int | None:
    """Samples; measured in a short clip, and in a longer one if that ends before the look-ahead does."""
    part = _randomised(part)
    for seconds, least in ((1.0, 8), (8.0, 32)):
        frames = max(least, round(seconds * codec.frame_rate))
        with torch.inference_mode(False), torch.enable_grad():
            samples = measure(part, frames, codec)
        if samples is not None:
            return samples
    return None


def _randomised(part: nn.Module) -> nn.Module:
    """A copy in which no weight is zero: a gradient of zero then means that there is no path."""
    part = copy.deepcopy(part).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for p in part.parameters():
        if p.ndim < 2:  # biases, norms, scales
            p.copy_(0.5 + 0.5 * torch.rand(p.shape, generator=generator))
        else:
            p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
    return part


def _heard_after(encoder: nn.Module, frames: int, codec: Codec) -> int | None:
    """Samples after the end of a frame on which its latent depends; None if they reach the end of the clip."""
    hop, middle = codec.hop_length, frames // 2
    x = _noise(codec, 1, 1, frames * hop).requires_grad_()
    y = encoder(x)[..., middle]
    (gradient,) = torch.autograd.grad((y * _noise(codec, *y.shape)).sum(), x)
    last = int(gradient[0, 0].nonzero().max())
    return None if last >= (frames - 1) * hop else last + 1 - (middle + 1) * hop


def _heard_before(decoder: nn.Module, frames: int, codec: Codec) -> int | None:
    """Samples before the beginning of a frame that depend on its latent; None if they reach the first frame."""
    hop, middle = codec.hop_length, frames // 2
    z = _noise(codec, 1, decoder.dim, frames).requires_grad_()
    y = decoder(z)
    noise = _noise(codec, *y.shape)

    def reaches(samples: int) -> bool:
        """Whether any of the first so many samples of the output depends on the latent."""
        chosen = (y * noise)[..., :samples].sum()
        (gradient,) = torch.autograd.grad(chosen, z, retain_graph=True)
        return bool(gradient[..., middle].any())

    low, high = hop, (middle + 1) * hop  # not before the second frame; within its own at the latest
    if reaches(low):
        return None
    while high - low > 1:
        between = (low + high) // 2
        low, high = (low, between) if reaches(between) else (between, high)
    return middle * hop - (high - 1)


def _noise(codec: Codec, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(_device(codec))
