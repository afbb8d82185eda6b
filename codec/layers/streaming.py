"""Streaming with explicit state: the ``step`` of causal layers, and the stream through a codec.

A causal layer has ``step(x, state) -> (y, state)``. A state is a tensor or a tuple of states, of a shape independent of
the chunk's length; None starts a stream, and so do zeros (except in ``codec/layers/inference.py``). Modules store no
state: one module serves many streams, and a step can be exported.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

WINDOW = 5  # lengths of a piece or of the context in a window, at least

State = Any  # None | Tensor | tuple[State, ...]


class StreamingLayer(nn.Module):
    """A causal layer whose forward pass is one step from the start of a stream."""

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)[0]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        raise NotImplementedError


def step(layer: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of a layer; layers without ``step`` are pointwise in time (activations) and stateless."""
    if hasattr(layer, "step"):
        return layer.step(x, state)
    return layer(x), None


def steps(layers: Iterable[nn.Module], x: Tensor, state: State) -> tuple[Tensor, State]:
    """One step of each layer in turn; the state is the tuple of their states."""
    layers, new_states = list(layers), []
    for layer, old in zip(layers, state if state is not None else (None,) * len(layers), strict=True):
        x, new = step(layer, x, old)
        new_states.append(new)
    return x, tuple(new_states)


class Sequential(nn.Sequential):
    """``nn.Sequential`` with a ``step``."""

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        return steps(self, x, state)


def in_pieces(part: nn.Module, x: Tensor, length: int, unit: int) -> Tensor:
    """``part(x)``, in pieces of ``length`` on the last axis (bounded memory) if no gradient is needed. ``unit``: see
    :func:`in_blocks`."""
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in part.parameters()))
    if not hasattr(part, "step"):
        length *= WINDOW
    if needs_gradient or x.shape[-1] <= length:
        return part(x)
    return torch.cat(list(in_blocks(part, x.split(length, dim=-1), unit)), dim=-1)


def in_blocks(part: nn.Module, blocks: Iterable[Tensor], unit: int) -> Iterator[Tensor]:
    """``part`` of the whole that ``blocks`` make on the last axis, in blocks: by steps if it is causal, in windows that
    overlap by its ``context`` if that is declared, or else at once. A block is a multiple of ``unit``, the elements of
    one frame of the input."""
    if hasattr(part, "step"):
        state = None
        for block in blocks:
            y, state = part.step(block, state)
            yield y
    elif getattr(part, "context", None) is None:
        yield part(torch.cat(list(blocks), dim=-1))
    else:
        yield from _windows(part, blocks, unit)


def _windows(part: nn.Module, blocks: Iterable[Tensor], unit: int) -> Iterator[Tensor]:
    blocks = iter(blocks)
    window, block = next(blocks), None
    before = 0  # frames at the start of the window whose output is there already
    while window.shape[-1] > before * unit:
        block = next(blocks, None)
        if block is not None:
            window = torch.cat([window, block], dim=-1)
        frames = window.shape[-1] // unit
        ready = frames - (part.context if block is not None else 0)
        if block is not None and ready - before < WINDOW * part.context:
            continue
        y = part(window)
        size = y.shape[-1] // frames
        yield y[..., before * size : ready * size]
        drop = max(0, ready - part.context)
        window, before = window[..., drop * unit :], ready - drop


class Stream:
    """One stream (or a batch of synchronous ones) through a causal codec, made by ``codec.streaming()``.

    Codes and audio equal those of the whole signal. Encoding and decoding are independent of each other. ``latency`` is
    the algorithmic delay in samples: one frame.
    """

    def __init__(self, codec: nn.Module, n_q: int | None = None):
        self.codec, self.n_q, self.latency = codec, n_q, codec.hop_length
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.encoder_state: State = None
        self.decoder_state: State = None
        self.pending: Tensor | None = None  # [B, 1, < hop_length], samples of the incomplete frame
        self.batch_sizes: dict[str, int] = {}  # of encoding and of decoding

    @torch.inference_mode()
    def encode(self, wav: Tensor, sample_rate: int | None = None) -> Tensor:
        """wav ``[B, 1, t]`` float32, any t -> codes ``[B, n_q, f]`` int64 of the f >= 0 frames that it completes.

        Raises ValueError, with the stream unchanged, if shape, dtype, batch size or a given rate (Hz) do not fit.
        """
        if sample_rate not in (None, self.codec.sample_rate):
            raise ValueError(f"the chunk is at {sample_rate} Hz and the codec at {self.codec.sample_rate}: resample it")
        if wav.ndim != 3 or wav.shape[1] != 1 or wav.dtype != torch.float32:
            raise ValueError(f"a chunk is [B, 1, t] float32 in [-1, 1], got {list(wav.shape)} {wav.dtype}")
        self._check_batch_size("encoding", len(wav))
        if self.pending is not None:
            wav = torch.cat([self.pending, wav], dim=-1)
        complete = wav.shape[-1] // self.codec.hop_length * self.codec.hop_length
        codes, self.encoder_state = self.codec.encode_step(wav[..., :complete], self.encoder_state, self.n_q)
        self.pending = wav[..., complete:].clone()  # the caller may overwrite its buffer
        return codes

    def finish(self) -> Tensor:
        """Codes ``[B, n_q, 0 or 1]`` of the incomplete frame, padded with zeros as the end of a whole signal is."""
        if self.pending is None:
            raise ValueError("nothing was encoded in this stream, so there is nothing to finish")
        missing = -self.pending.shape[-1] % self.codec.hop_length
        return self.encode(self.pending.new_zeros(self.pending.shape[0], 1, missing))

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Integer codes ``[B, k, f]`` -> wav ``[B, 1, f * hop_length]`` float32; ValueError for others than codes."""
        if codes.ndim != 3 or codes.is_floating_point() or codes.dtype == torch.bool:
            raise ValueError(f"codes are [B, k, f] integers, got {list(codes.shape)} {codes.dtype}")
        size = self.codec.quantizer.codebook_size
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise ValueError(f"the codec has codes from 0 to {size - 1}, got {int(codes.min())} to {int(codes.max())}")
        self._check_batch_size("decoding", len(codes))
        wav, self.decoder_state = self.codec.decode_step(codes.long(), self.decoder_state)
        return wav

    def _check_batch_size(self, direction: str, size: int) -> None:
        if (first := self.batch_sizes.setdefault(direction, size)) != size:
            raise ValueError(
                f"{direction} began with a batch of {first} and got {size}: reset() the stream, or make one for each"
            )
