"""A neural audio codec: encoder, quantizer, decoder."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.decoders.base import Decoder
from codec.encoders.base import Encoder
from codec.layers.inference import ReducedPrecision, for_inference
from codec.layers.streaming import State, Stream, in_pieces
from codec.quantizers.base import Quantized, Quantizer

PIECE_SECONDS = 2.0  # audio per step of a causal part when no gradient is needed


class CodecOutput(NamedTuple):
    """The forward pass of a codec."""

    wav: Tensor  # [B, 1, T], as long as the input
    latents: Tensor  # [B, D, F], before quantization
    quantized: Quantized


class Codec(nn.Module):
    """A neural audio codec at one sample rate (Hz), with ``frame_rate`` = sample_rate / hop_length latent frames (Hz).

    Waveforms are mono ``[B, 1, T]`` float in [-1, 1], T >= 1. They are zero-padded on the right to F = ceil(T /
    hop_length) frames, and outputs are cut to T. Without gradients, parts that are
    causal or declare their context run in pieces, in bounded memory.
    Raises ValueError if hop lengths, rates or latent channels of the parts disagree.
    """

    def __init__(self, encoder: Encoder, quantizer: Quantizer, decoder: Decoder, sample_rate: int, frame_rate: float):
        super().__init__()
        self.inference = False  # True after for_inference
        if encoder.hop_length != decoder.hop_length:
            raise ValueError(
                f"the encoder's hop is {encoder.hop_length} samples and the decoder's {decoder.hop_length}: "
                "make the products of their strides equal"
            )
        actual = sample_rate / encoder.hop_length
        if abs(actual - frame_rate) > 1e-6 * actual:
            raise ValueError(
                f"sample_rate {sample_rate} / hop {encoder.hop_length} is {actual:.12g} frames per second, but "
                f"frame_rate is {frame_rate:.12g}: set frame_rate={actual:.12g}, or change the strides"
            )
        if not encoder.dim == quantizer.dim == decoder.dim:
            raise ValueError(
                f"latent channels differ: encoder {encoder.dim}, quantizer {quantizer.dim}, decoder {decoder.dim}: "
                "set latent_dim once for all three"
            )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.sample_rate, self.frame_rate, self.hop_length = sample_rate, frame_rate, encoder.hop_length
        self.frames_per_piece = max(1, round(PIECE_SECONDS * frame_rate))

    def train(self, mode: bool = True) -> "Codec":
        if mode and self.inference:
            raise ValueError("this codec is in its form for inference and cannot be trained: load it again")
        return super().train(mode)

    def forward(self, wav: Tensor, n_q: int | None = None) -> CodecOutput:
        """wav ``[B, 1, T]`` -> :class:`CodecOutput`, with the first ``n_q`` codebooks (None: all)."""
        latents = self.latents(wav)
        quantized = self.quantizer(latents, n_q)
        return CodecOutput(self.decode_latents(quantized.z)[..., : wav.shape[-1]], latents, quantized)

    def latents(self, wav: Tensor) -> Tensor:
        """wav ``[B, 1, T]`` -> continuous latents ``[B, D, F]``, before quantization."""
        if wav.ndim != 3 or wav.shape[1] != 1 or wav.shape[2] < 1:
            raise ValueError(f"a waveform batch is [B, 1, T] with T >= 1, got {list(wav.shape)}")
        padded = F.pad(wav, (0, -wav.shape[-1] % self.hop_length))
        return in_pieces(self.encoder, padded, self.frames_per_piece * self.hop_length, self.hop_length)

    def encode(self, wav: Tensor, n_q: int | None = None) -> Tensor:
        """wav ``[B, 1, T]`` -> codes ``[B, n_q, F]`` int64."""
        return self.quantizer.encode(self.latents(wav), n_q)

    def decode(self, codes: Tensor, length: int | None = None) -> Tensor:
        """codes ``[B, k, F]`` int64 -> waveform ``[B, 1, F * hop_length]``, cut to ``length`` samples if given."""
        return self.decode_latents(self.quantizer.decode(codes))[..., :length]

    def decode_latents(self, z: Tensor) -> Tensor:
        """Latents ``[B, D, F]``, quantized or not -> waveform ``[B, 1, F * hop_length]``."""
        return in_pieces(self.decoder, z, self.frames_per_piece, 1)

    def bitrate(self, n_q: int | None = None) -> float:
        """Nominal bitrate in kbit/s."""
        return self.quantizer.bitrate(n_q)

    def search_with(self, beam: int) -> "Codec":
        """Search codes along the ``beam`` best paths through the residual codebooks, outside training -> itself.

        1 is the usual search, level by level. A wider one finds codes of a smaller error for ``n_q`` levels, which any
        decoder of this codec reads (docs/evaluation.md); its cost grows with ``beam``. ValueError without codebooks.
        """
        self.quantizer.search_with(beam)
        return self

    def encode_batch(self, wavs: Sequence[Tensor], n_q: int | None = None) -> list[Tensor]:
        """Waveforms ``[T]`` of any lengths -> codes ``[n_q, F]``, as if each were encoded alone; a batch if causal."""
        if not hasattr(self.encoder, "step"):
            return [self.encode(wav[None, None], n_q)[0] for wav in wavs]
        if not wavs:
            return []
        longest = max(len(wav) for wav in wavs)
        codes = self.encode(torch.stack([F.pad(wav, (0, longest - len(wav))) for wav in wavs])[:, None], n_q)
        return [one[:, : -(-len(wav) // self.hop_length)] for one, wav in zip(codes, wavs, strict=True)]

    def decode_batch(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Codes ``[k, F]`` of any F, equal k -> waveforms ``[F * hop_length]``, as if each were decoded alone."""
        if not hasattr(self.decoder, "step"):
            return [self.decode(one[None])[0, 0] for one in codes]
        if not codes:
            return []
        longest = max(one.shape[-1] for one in codes)
        wavs = self.decode(torch.stack([F.pad(one, (0, longest - one.shape[-1])) for one in codes]))
        return [wav[0, : one.shape[-1] * self.hop_length] for wav, one in zip(wavs, codes, strict=True)]

    def encode_step(self, wav: Tensor, state: State = None, n_q: int | None = None) -> tuple[Tensor, State]:
        """The next wav ``[B, 1, f * hop_length]`` of a stream -> codes ``[B, n_q, f]`` and the next state.

        A state of None starts a stream. After :meth:`for_inference` a step overwrites the state.
        """
        if wav.shape[-1] == 0:
            return torch.zeros(len(wav), self.quantizer.check_n_q(n_q), 0, dtype=torch.int64, device=wav.device), state
        z, state = self.encoder.step(wav, state)
        return self.quantizer.encode(z, n_q), state

    def decode_step(self, codes: Tensor, state: State = None) -> tuple[Tensor, State]:
        """The next codes ``[B, k, f]`` of a stream -> wav ``[B, 1, f * hop_length]`` and the next state."""
        z = self.quantizer.decode(codes)
        return self.decoder.step(z, state) if z.shape[-1] else (z.new_zeros(len(z), 1, 0), state)

    @property
    def causal(self) -> bool:
        """Whether the codec can stream: both encoder and decoder have a ``step``."""
        return hasattr(self.encoder, "step") and hasattr(self.decoder, "step")

    def check_causal(self) -> None:
        """Raises ValueError, with the name of the part, if encoder or decoder looks ahead."""
        for part in (self.encoder, self.decoder):
            if not hasattr(part, "step"):
                raise ValueError(
                    f"{type(part).__name__} looks ahead and cannot stream: use a causal one, such as seanet"
                )

    def streaming(self, n_q: int | None = None) -> Stream:
        """A new stream through a copy of this codec in its form for inference (without a copy if it has that form).

        Raises ValueError if a part looks ahead, or there are fewer than ``n_q`` codebooks.
        """
        self.quantizer.check_n_q(n_q)
        self.check_causal()
        return Stream(self if self.inference else copy.deepcopy(self).for_inference(), n_q)

    def for_inference(self, encoder: torch.dtype = torch.float32, decoder: torch.dtype = torch.float32) -> "Codec":
        """Convert this codec, in place, to its faster form, which can neither be trained nor saved -> itself.

        The dtypes are those of the weights, float32 for parts that look ahead (else ValueError). bfloat16 is harmless
        in the decoder and changes codes in the encoder (docs/results/inference.md).
        """
        reduced = {
            name: dtype for name, dtype in (("encoder", encoder), ("decoder", decoder)) if dtype != torch.float32
        }
        for name in reduced:
            if not hasattr(getattr(self, name), "step"):
                raise ValueError(f"{type(getattr(self, name)).__name__} looks ahead and stays in float32")
        for_inference(self)
        for name, dtype in reduced.items():
            setattr(self, name, ReducedPrecision(getattr(self, name), dtype))
        self.inference = True
        return self
