"""Interface of a decoder."""

from torch import Tensor, nn


class Decoder(nn.Module):
    """Latents ``[B, dim, F]`` -> waveform ``[B, 1, F * hop_length]``.

    A causal decoder also has ``step(latents, state) -> (wav, state)`` (``codec/layers/streaming.py``).
    """

    dim: int  # channels D of the latents
    hop_length: int  # samples per latent frame
    lookahead: int | None = None  # samples before a frame that depend on its latent; None: unknown, or the whole clip

    def forward(self, latents: Tensor) -> Tensor:
        raise NotImplementedError
