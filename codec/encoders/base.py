"""Interface of an encoder."""

from torch import Tensor, nn


class Encoder(nn.Module):
    """Waveform ``[B, 1, T]``, T a multiple of ``hop_length`` -> latents ``[B, dim, T / hop_length]``.

    A causal encoder also has ``step(wav, state) -> (latents, state)`` (``codec/layers/streaming.py``).
    """

    dim: int  # channels D of the latents
    hop_length: int  # samples per latent frame
    lookahead: int | None = None  # samples after a frame on which its latent depends; None: unknown, or the whole clip

    def forward(self, wav: Tensor) -> Tensor:
        raise NotImplementedError
