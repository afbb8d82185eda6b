"""The contract of an encoder."""

from torch import Tensor, nn


class Encoder(nn.Module):
    """Waveform ``[B, 1, T]``, T a multiple of ``hop_length`` -> latents ``[B, dim, T / hop_length]``.

    Attributes:
        dim: channels D of the latents.
        hop_length: samples per latent frame.
    """

    dim: int
    hop_length: int

    def forward(self, wav: Tensor) -> Tensor:
        raise NotImplementedError
