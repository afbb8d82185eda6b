"""Mimi's decoder (arXiv 2410.00037, section 3.3.1), the mirror of ``codec/encoders/mimi.py``."""

from torch import Tensor, nn

from codec.decoders.base import Decoder
from codec.layers.conv import CausalConvTranspose1d
from codec.layers.streaming import State, steps
from codec.layers.transformer import Transformer


class MimiDecoder(Decoder):
    """Mimi's decoder ``[B, dim, F] -> [B, 1, F * hop_length]``; hop_length is the SEANet's times ``resample``.

    The transformer is at the SEANet's frame rate. ``resample`` is the stride of the first, transposed convolution
    (kernel 2 * resample, no bias, depthwise as in the published weights); 1: no such layer.
    """

    lookahead = 0

    def __init__(self, seanet: Decoder, transformer: Transformer | None = None, resample: int = 2):
        super().__init__()
        self.dim, self.hop_length = seanet.dim, seanet.hop_length * resample
        self.upsample = None
        if resample > 1:
            self.upsample = CausalConvTranspose1d(
                self.dim, self.dim, 2 * resample, resample, groups=self.dim, bias=False
            )
        self.transformer, self.seanet = transformer, seanet

    def parts(self) -> list[nn.Module]:
        return [part for part in (self.upsample, self.transformer, self.seanet) if part is not None]

    def forward(self, latents: Tensor) -> Tensor:
        for part in self.parts():
            latents = part(latents)
        return latents

    def step(self, latents: Tensor, state: State = None) -> tuple[Tensor, State]:
        """latents ``[B, dim, n]`` -> wav ``[B, 1, n * hop_length]``."""
        return steps(self.parts(), latents, state)
