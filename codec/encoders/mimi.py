"""Mimi's encoder (arXiv 2410.00037, section 3.3.1): SEANet, a causal transformer, and a strided convolution down to the
frame rate of the codes."""

from torch import Tensor, nn

from codec.encoders.base import Encoder
from codec.layers.conv import CausalConv1d
from codec.layers.streaming import State, steps
from codec.layers.transformer import Transformer


class MimiEncoder(Encoder):
    """``[B, 1, T] -> [B, dim, T / hop_length]``; hop_length is the SEANet's times ``resample``.

    Args:
        seanet: from the waveform to latents.
        transformer: at the SEANet's frame rate; None leaves it out (the paper's table 3).
        resample: stride of the last convolution (kernel 2 * resample, no bias, before the first frame stands that frame
            again); 1 leaves it out.
    """

    lookahead = 0

    def __init__(self, seanet: Encoder, transformer: Transformer | None = None, resample: int = 2):
        super().__init__()
        self.dim, self.hop_length = seanet.dim, seanet.hop_length * resample
        self.seanet, self.transformer = seanet, transformer
        options = dict(bias=False, pad_mode="replicate")
        down = CausalConv1d(self.dim, self.dim, 2 * resample, resample, **options) if resample > 1 else None
        self.downsample = down

    def parts(self) -> list[nn.Module]:
        return [part for part in (self.seanet, self.transformer, self.downsample) if part is not None]

    def forward(self, wav: Tensor) -> Tensor:
        z = wav
        for part in self.parts():
            z = part(z)
        return z

    def step(self, wav: Tensor, state: State = None) -> tuple[Tensor, State]:
        """wav ``[B, 1, n * hop_length]`` -> ``[B, dim, n]``."""
        return steps(self.parts(), wav, state)
