"""Mimi's encoder (arXiv 2410.00037, section 3.3.1): SEANet, causal transformer, strided convolution."""

from torch import Tensor, nn

from codec.encoders.base import Encoder
from codec.layers.conv import CausalConv1d
from codec.layers.streaming import State, steps
from codec.layers.transformer import Transformer


class MimiEncoder(Encoder):
    """Mimi's encoder ``[B, 1, T] -> [B, dim, T / hop_length]``; hop_length is the SEANet's times ``resample``.

    The transformer is at the SEANet's frame rate (None: the paper's table 3). ``resample`` is the stride of the last
    convolution (kernel 2 * resample, no bias, padded with the first frame); 1: no such layer.
    """

    lookahead = 0

    def __init__(self, seanet: Encoder, transformer: Transformer | None = None, resample: int = 2):
        super().__init__()
        self.dim, self.hop_length = seanet.dim, seanet.hop_length * resample
        self.seanet, self.transformer = seanet, transformer
        self.downsample = None
        if resample > 1:
            self.downsample = CausalConv1d(self.dim, self.dim, 2 * resample, resample, bias=False, pad_mode="replicate")

    def parts(self) -> list[nn.Module]:
        return [part for part in (self.seanet, self.transformer, self.downsample) if part is not None]

    def forward(self, wav: Tensor) -> Tensor:
        x = wav
        for part in self.parts():
            x = part(x)
        return x

    def step(self, wav: Tensor, state: State = None) -> tuple[Tensor, State]:
        """wav ``[B, 1, n * hop_length]`` -> latents ``[B, dim, n]``."""
        return steps(self.parts(), wav, state)
