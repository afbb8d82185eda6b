"""No bottleneck: the upper bound of every quantizer, and the simplest continuous latent."""

from torch import Tensor

from codec.quantizers.base import Continuous, Quantized


class NoQuantizer(Continuous):
    """Identity: latents ``[B, D, F]`` -> the same, without codes."""

    def __init__(self, dim: int, frame_rate: float):
        super().__init__(dim, frame_rate, dim)

    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        self.check_n_q(n_q)
        return Quantized(z, None, z.new_zeros(()), {})

    def _unquantized(self, x: Tensor) -> Tensor:
        return x
