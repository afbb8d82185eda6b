"""The contract of a decoder."""

from torch import Tensor, nn


class Decoder(nn.Module):
    """Latents ``[B, dim, F]`` -> waveform ``[B, 1, F * hop_length]``.

    Attributes:
        dim: channels D of the latents.
        hop_length: samples per latent frame.
    """

    dim: int
    hop_length: int

    def forward(self, latents: Tensor) -> Tensor:
        raise NotImplementedError
