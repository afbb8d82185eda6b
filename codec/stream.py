"""Encoding and decoding chunk by chunk, as the audio comes."""

from typing import Protocol

import torch
from torch import Tensor

from codec.layers.streaming import State


class Steps(Protocol):
    """What a stream needs of a codec."""

    sample_rate: int
    hop_length: int

    def encode_step(self, wav: Tensor, state: State, n_q: int | None) -> tuple[Tensor, State]: ...

    def decode_step(self, codes: Tensor, state: State) -> tuple[Tensor, State]: ...


class Stream:
    """One stream, or a batch of streams in step: codes and audio equal those of the whole signal at once.

    Made by ``codec.streaming()``. Encoding and decoding are independent of each other.

    Attributes:
        latency: samples between a sound and the decoded sound: a frame is known when its last sample is, and decoded
        from
            its own codes and earlier ones.
    """

    def __init__(self, codec: Steps, n_q: int | None = None):
        self.codec, self.n_q, self.latency = codec, n_q, codec.hop_length
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.encoding: State = None
        self.decoding: State = None
        self.waiting: Tensor | None = None  # [B, 1, < hop_length], the beginning of the next frame

    @torch.inference_mode()
    def encode(self, wav: Tensor, sample_rate: int | None = None) -> Tensor:
        """wav ``[B, 1, t]`` float, any t -> codes ``[B, n_q, f]`` int64 of the f >= 0 frames that it completes.

        Args:
            sample_rate: of the chunk in Hz, to be checked; None trusts it.

        Raises:
            ValueError: if rate, shape, dtype or batch size are not those of the stream.
        """
        if sample_rate not in (None, self.codec.sample_rate):
            raise ValueError(f"the chunk is at {sample_rate} Hz and the codec at {self.codec.sample_rate}: resample it")
        if wav.ndim != 3 or wav.shape[1] != 1 or not wav.is_floating_point():
            raise ValueError(f"a chunk is [B, 1, t] float in [-1, 1], got {list(wav.shape)} {wav.dtype}")
        if self.waiting is not None:
            if self.waiting.shape[0] != wav.shape[0]:
                raise ValueError(
                    f"the stream began with a batch of {self.waiting.shape[0]} and got {wav.shape[0]}: reset() it, "
                    "or make a stream for each"
                )
            wav = torch.cat([self.waiting, wav], dim=-1)
        ready = wav.shape[-1] // self.codec.hop_length * self.codec.hop_length
        self.waiting = wav[..., ready:]
        codes, self.encoding = self.codec.encode_step(wav[..., :ready], self.encoding, self.n_q)
        return codes

    def finish(self) -> Tensor:
        """The codes ``[B, n_q, 0 or 1]`` of the frame that has begun, filled with zeros, as for a whole signal."""
        if self.waiting is None:
            raise ValueError("nothing was encoded in this stream: there is no end to it")
        missing = -self.waiting.shape[-1] % self.codec.hop_length
        return self.encode(self.waiting.new_zeros(self.waiting.shape[0], 1, missing))

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """codes ``[B, k, f]`` int64 -> wav ``[B, 1, f * hop_length]`` float32.

        Raises:
            ValueError: if there are more codebooks than the codec has, or it is no batch of codes.
        """
        if codes.ndim != 3 or codes.is_floating_point():
            raise ValueError(f"codes are [B, k, f] integers, got {list(codes.shape)} {codes.dtype}")
        wav, self.decoding = self.codec.decode_step(codes, self.decoding)
        return wav
