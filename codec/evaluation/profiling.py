"""Cost of a codec: FLOP, real-time factors (of codec and machine) and algorithmic delay."""

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
    """GFLOP per second of audio, ``{"encode": ..., "decode": ...}``, with the first ``n_q`` codebooks (None: all).

    A multiplication and an addition are 2 FLOP. Counted are convolutions, matrix products, LSTMs, attention and the
    search for the nearest codes; not counted are FFTs and elementwise operations (activations, norms, weight norm). A
    streaming part is counted at one frame of a long stream with its whole attention context, any other on a clip of
    ``seconds``. Nothing is computed: tensors have shapes only. Raises ValueError if there are fewer than ``n_q``
    codebooks.
    """
    n_q = codec.quantizer.check_n_q(n_q)
    frames, dim = max(1, round(seconds * codec.frame_rate)), codec.quantizer.dim
    # attention is counted as the two matrix products that it is, masked places of them too
    with FakeTensorMode(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        # a copy on the CPU whose tensors have shapes and no data
        tensors = [*codec.parameters(), *codec.buffers()]
        fake = copy.deepcopy(codec, {id(t): torch.empty(t.shape, dtype=t.dtype) for t in tensors})
        encode = _flop_per_frame(fake.encoder, lambda f: torch.empty(1, 1, f * codec.hop_length), frames)
        decode = _flop_per_frame(fake.decoder, lambda f: torch.empty(1, dim, f), frames)
        z = torch.empty(1, dim, frames)
        if n_q:
            codes = torch.empty(1, n_q, frames, dtype=torch.int64)
            encode += _flop(lambda: fake.quantizer.encode(z, n_q)) / frames
            decode += _flop(lambda: fake.quantizer.decode(codes)) / frames
        else:
            x = torch.empty(1, codec.quantizer.latent_dim, frames)
            encode += _flop(lambda: fake.quantizer.to_latents(z)) / frames
            decode += _flop(lambda: fake.quantizer.from_latents(x)) / frames
    return {"encode": encode * codec.frame_rate / 1e9, "decode": decode * codec.frame_rate / 1e9}


def algorithmic_delay(codec: Codec) -> float | None:
    """Algorithmic delay in seconds: one frame plus look-ahead; None if that is not declared or is the whole clip."""
    lookahead = [codec.encoder.lookahead, codec.decoder.lookahead]
    return None if None in lookahead else (codec.hop_length + sum(lookahead)) / codec.sample_rate


@torch.inference_mode()
def real_time_factors(
    codec: Codec, n_q: int | None = None, seconds: float = 10.0, repeats: int = 5
) -> dict[str, float | int | str]:
    """Seconds of computing per second of audio, on the codec's device; below 1 is faster than real time.

    Median of ``repeats`` after a warm-up, on ``seconds`` of noise, in the codec's present form
    (:meth:`Codec.for_inference`) -> ``rtf_encode``, ``rtf_decode``, ``device`` (its name), ``threads`` (of the CPU),
    ``seconds``. Raises ValueError if there are fewer than ``n_q`` codebooks.
    """
    n_q = codec.quantizer.check_n_q(n_q)
    device = next(codec.parameters(), torch.empty(0)).device
    noise = torch.randn(1, 1, round(seconds * codec.sample_rate), generator=torch.Generator().manual_seed(0))
    wav = (0.1 * noise).to(device)
    encode, decode = (lambda x: codec.encode(x, n_q)), codec.decode
    if not n_q:
        encode = lambda x: codec.quantizer.to_latents(codec.latents(x))  # noqa: E731
        decode = lambda x: codec.decode_latents(codec.quantizer.from_latents(x))  # noqa: E731
    synchronize = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    codes, times = encode(wav), {"rtf_encode": [], "rtf_decode": []}
    decode(codes)
    for _ in range(repeats):
        for name, call, x in (("rtf_encode", encode, wav), ("rtf_decode", decode, codes)):
            synchronize()
            start = time.perf_counter()
            call(x)
            synchronize()
            times[name].append(time.perf_counter() - start)
    factors = {name: statistics.median(values) * codec.sample_rate / wav.shape[-1] for name, values in times.items()}
    return factors | {"device": device_name(device), "threads": torch.get_num_threads(), "seconds": seconds}


def device_name(device: torch.device) -> str:
    """Manufacturer's name of a device, as far as the system knows it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() if device.type == "cpu" else str(device)


def _flop_per_frame(part: nn.Module, make: Callable[[int], Tensor], frames: int) -> float:
    """FLOP per latent frame of an encoder or decoder; ``make`` returns the input for a number of frames."""
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
UNKNOWN = {aten.mkldnn_rnn_layer: _lstm_layer, aten.addmm_: _added_product, aten.baddbmm_: _added_product}
