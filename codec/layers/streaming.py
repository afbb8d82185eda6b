"""Explicit streaming state: every causal part offers ``step(x, state) -> (y, state)``.

A state is a tensor, or a tuple of states; ``None`` starts a new stream. Nothing is kept inside the modules, so one
module can serve many streams, and a step can be exported with its state as inputs and outputs: a state has one shape,
whatever the lengths of the chunks, and a state of zeros starts a new stream, too (not so in the forms for inference,
``codec/layers/inference.py``).
"""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

State = Any  # None | Tensor | tuple[State, ...]


def step(layer: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of ``layer``; a layer without ``step`` works on each sample alone (activations) and has no state."""
    if hasattr(layer, "step"):
        return layer.step(x, state)
    return layer(x), None


def steps(layers: Iterable[nn.Module], x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of each layer in turn; the state is the tuple of their states."""
    layers = list(layers)
    new = []
    for layer, old in zip(layers, state if state is not None else (None,) * len(layers), strict=True):
        x, after = step(layer, x, old)
        new.append(after)
    return x, tuple(new)


class Sequential(nn.Sequential):
    """``nn.Sequential`` that can also be run step by step."""

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        return steps(self, x, state)


def in_pieces(part: nn.Module, x: Tensor, length: int) -> Tensor:
    """``part(x)``, where no gradient is wanted and the part can stream in pieces of ``length`` along the last axis.

    Memory then does not grow with x, and activations stay in the cache: long audio costs no more per second.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in part.parameters()))
    if wanted or x.shape[-1] <= length or not hasattr(part, "step"):
        return part(x)
    state, out = None, []
    for piece in x.split(length, dim=-1):
        y, state = part.step(piece, state)
        out.append(y)
    return torch.cat(out, dim=-1)


class Steps(Protocol):
    """What a stream needs of a codec."""

    sample_rate: int
    hop_length: int
    quantizer: Any

    def encode_step(self, wav: Tensor, state: State, n_q: int | None) -> tuple[Tensor, State]: ...

    def decode_step(self, codes: Tensor, state: State) -> tuple[Tensor, State]: ...


class Stream:
    """One stream, or a batch of streams in step: codes and audio equal those of the whole signal at once.

    Made by ``codec.streaming()``. Encoding and decoding are independent of each other.

    Attributes:
        latency: samples between a sound and the decoded sound: a frame is known when its last sample is, and decoded
            from its own codes and earlier ones.
    """

    def __init__(self, codec: Steps, n_q: int | None = None):
        self.codec, self.n_q, self.latency = codec, n_q, codec.hop_length
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.encoding: State = None
        self.decoding: State = None
        self.waiting: Tensor | None = None  # [B, 1, < hop_length], the beginning of the next frame
        self.batch: dict[str, int] = {}  # streams in step: of encoding, of decoding

    @torch.inference_mode()
    def encode(self, wav: Tensor, sample_rate: int | None = None) -> Tensor:
        """wav ``[B, 1, t]`` float32, any t -> codes ``[B, n_q, f]`` int64 of the f >= 0 frames that it completes.

        Args:
            sample_rate: of the chunk in Hz, to be checked; None trusts it.

        Raises:
            ValueError: if rate, shape, dtype or batch size are not those of the stream, which is then as it was before.
        """
        if sample_rate not in (None, self.codec.sample_rate):
            raise ValueError(f"the chunk is at {sample_rate} Hz and the codec at {self.codec.sample_rate}: resample it")
        if wav.ndim != 3 or wav.shape[1] != 1 or wav.dtype != torch.float32:
            raise ValueError(f"a chunk is [B, 1, t] float32 in [-1, 1], got {list(wav.shape)} {wav.dtype}")
        self._check_batch("encoding", len(wav))
        if self.waiting is not None:
            wav = torch.cat([self.waiting, wav], dim=-1)
        ready = wav.shape[-1] // self.codec.hop_length * self.codec.hop_length
        codes, self.encoding = self.codec.encode_step(wav[..., :ready], self.encoding, self.n_q)
        self.waiting = wav[..., ready:].clone()  # the caller may use its buffer again
        return codes

    def finish(self) -> Tensor:
        """The codes ``[B, n_q, 0 or 1]`` of the frame that has begun, filled with zeros, as for a whole signal."""
        if self.waiting is None:
            raise ValueError("nothing was encoded in this stream: there is no end to it")
        missing = -self.waiting.shape[-1] % self.codec.hop_length
        return self.encode(self.waiting.new_zeros(self.waiting.shape[0], 1, missing))

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """codes ``[B, k, f]`` of integers -> wav ``[B, 1, f * hop_length]`` float32.

        Raises:
            ValueError: if these are no codes of the codec, or the batch size is not that of the stream.
        """
        if codes.ndim != 3 or codes.is_floating_point() or codes.dtype == torch.bool:
            raise ValueError(f"codes are [B, k, f] integers, got {list(codes.shape)} {codes.dtype}")
        size = self.codec.quantizer.codebook_size
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise ValueError(f"the codec has codes from 0 to {size - 1}, got {int(codes.min())} to {int(codes.max())}")
        self._check_batch("decoding", len(codes))
        wav, self.decoding = self.codec.decode_step(codes.long(), self.decoding)
        return wav

    def _check_batch(self, what: str, size: int) -> None:
        if self.batch.setdefault(what, size) != size:
            raise ValueError(
                f"the {what} began with a batch of {self.batch[what]} and got {size}: reset() the stream, or make "
                "one for each"
            )
