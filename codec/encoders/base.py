"""The contract of an encoder."""

from torch import Tensor, nn


class Encoder(nn.Module):
    """Waveform ``[B, 1, T]``, T a multiple of ``hop_length`` -> latents ``[B, dim, T / hop_length]``.

    A causal encoder also has ``step(wav, state) -> (latents, state)`` (``codec/layers/streaming.py``).

    Attributes:
        dim: channels D of the latents.
        hop_length: samples per latent frame.
        lookahead: samples after the end of a frame on which its latent depends; None: not known, or the whole clip.
    """

    dim: int
    hop_length: int
    lookahead: int | None = None

    def forward(self, wav: Tensor) -> Tensor:
        raise NotImplementedError
