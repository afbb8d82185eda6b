"""The codec: encoder, quantizer, decoder, and the lengths around them."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from codec.decoders.base import Decoder
from codec.encoders.base import Encoder
from codec.quantizers.base import Quantized, Quantizer


class CodecOutput(NamedTuple):
    wav: Tensor
    """``[B, 1, T]``, as long as the input."""
    latents: Tensor
    """``[B, D, F]``, before quantization."""
    quantized: Quantized


class Codec(nn.Module):
    """A neural audio codec at one sample rate.

    Waveforms are mono ``[B, 1, T]`` float in [-1, 1] at ``sample_rate``, with any T >= 1: they are padded on the right
    with zeros to whole frames (F = ceil(T / hop_length)), and what comes back is cut to T.

    Args:
        encoder, quantizer, decoder: the parts; see their contracts in ``base.py`` beside them.
        sample_rate: in Hz.
        frame_rate: latent frames per second that the configuration states, in Hz.

    Raises:
        ValueError: if the parts do not fit together; says which number to change.
    """

    def __init__(self, encoder: Encoder, quantizer: Quantizer, decoder: Decoder, sample_rate: int, frame_rate: float):
        super().__init__()
        if encoder.hop_length != decoder.hop_length:
            raise ValueError(
                f"the encoder's hop is {encoder.hop_length} samples and the decoder's {decoder.hop_length}: "
                "make the products of their strides equal"
            )
        actual = sample_rate / encoder.hop_length
        if abs(actual - frame_rate) > 1e-6 * actual:
            raise ValueError(
                f"sample_rate {sample_rate} / hop {encoder.hop_length} is {actual:g} frames per second, but frame_rate "
                f"says {frame_rate:g}: set frame_rate={actual:g}, or change the strides"
            )
        if not encoder.dim == quantizer.dim == decoder.dim:
            raise ValueError(
                f"latent channels differ: encoder {encoder.dim}, quantizer {quantizer.dim}, decoder {decoder.dim}: "
                "set latent_dim once for all three"
            )
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder
        self.sample_rate, self.frame_rate, self.hop_length = sample_rate, frame_rate, encoder.hop_length

    def forward(self, wav: Tensor, n_q: int | None = None) -> CodecOutput:
        """wav ``[B, 1, T]`` -> :class:`CodecOutput`, with the first ``n_q`` codebooks (None: all)."""
        latents = self.latents(wav)
        quantized = self.quantizer(latents, n_q)
        return CodecOutput(self.decoder(quantized.z)[..., : wav.shape[-1]], latents, quantized)

    def latents(self, wav: Tensor) -> Tensor:
        """wav ``[B, 1, T]`` -> continuous latents ``[B, D, F]``, before quantization.

        Raises:
            ValueError: if wav is not ``[B, 1, T]`` with T >= 1.
        """
        if wav.ndim != 3 or wav.shape[1] != 1 or wav.shape[2] < 1:
            raise ValueError(f"a waveform batch is [B, 1, T] with T >= 1, got {list(wav.shape)}")
        return self.encoder(F.pad(wav, (0, -wav.shape[-1] % self.hop_length)))

    def encode(self, wav: Tensor, n_q: int | None = None) -> Tensor:
        """wav ``[B, 1, T]`` -> codes ``[B, n_q, F]`` int64."""
        return self.quantizer.encode(self.latents(wav), n_q)

    def decode(self, codes: Tensor, length: int | None = None) -> Tensor:
        """codes ``[B, k, F]`` int64 -> waveform ``[B, 1, F * hop_length]``, cut to ``length`` samples if given."""
        return self.decoder(self.quantizer.decode(codes))[..., :length]

    def bitrate(self, n_q: int | None = None) -> float:
        """Nominal bitrate in kbit/s."""
        return self.quantizer.bitrate(n_q)
