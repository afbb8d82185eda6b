"""The contract of a decoder."""

from torch import Tensor, nn


class Decoder(nn.Module):
    """Latents ``[B, dim, F]`` -> waveform ``[B, 1, F * hop_length]``.

    A causal decoder also has ``step(latents, state) -> (wav, state)`` (``codec/layers/streaming.py``).

    Attributes:
        dim: channels D of the latents.
        hop_length: samples per latent frame.
        lookahead: samples before the start of a frame that depend on its latent; None: not known, or the whole clip.
    """

    dim: int
    hop_length: int
    lookahead: int | None = None

    def forward(self, latents: Tensor) -> Tensor:
        raise NotImplementedError
