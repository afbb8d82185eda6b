"""No bottleneck: the latents pass as they are. The ceiling of every quantizer, and the simplest continuous latent."""

from torch import Tensor

from codec.quantizers.base import Quantized, Quantizer


class NoQuantizer(Quantizer):
    """Identity under the quantizer contract; has no codes and no bitrate."""

    def __init__(self, dim: int, frame_rate: float):
        super().__init__()
        self.dim, self.frame_rate, self.n_q, self.size = dim, frame_rate, 0, 0

    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        self.check_n_q(n_q)
        return Quantized(z, None, z.new_zeros(()), {})

    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        raise ValueError(
            "quantizer=none is continuous and has no codes: use Codec.latents, or train with quantizer=rvq"
        )

    decode = encode

    def bitrate(self, n_q: int | None = None) -> float:
        return float("nan")
