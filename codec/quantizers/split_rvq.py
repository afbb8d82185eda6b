"""Split residual vector quantization (Mimi, arXiv 2410.00037, section 3.3.2).

A semantic codebook beside an acoustic RVQ: both quantize the same latent through their own projections, and their
outputs are added. Unlike Kyutai's code, quantizer dropout is drawn for each example (SoundStream), not for a batch.
"""

import torch
from torch import Tensor

from codec.quantizers.base import Quantized, Quantizer, dropout_mask, unquantized_mask
from codec.quantizers.rvq import RVQ
from codec.utils.distributed import mean_over_ranks


class SplitRVQ(Quantizer):
    """Split residual vector quantizer ``[B, D, F]`` -> K codes, the first semantic, the others acoustic.

    Args:
        n_q: codebooks K, at least 2.
        dropout: probability, in training, that an example uses only the first n acoustic codebooks, n uniform in
            1..K - 1.
        masks: "shared": the same examples are unquantized in both parts (the paper; half are continuous at rate 0.5).
            "independent": each part draws its own (Kyutai's code; 1/4 continuous, 1/4 quantized, 1/2 mixed).
        Others: as for :class:`codec.quantizers.rvq.RVQ`.
    """

    has_semantic = True

    def __init__(
        self,
        dim: int,
        frame_rate: float,
        n_q: int = 8,
        codebook_size: int = 2048,
        codebook_dim: int = 256,
        decay: float = 0.99,
        kmeans_iters: int = 50,
        dropout: float = 1.0,
        quantization_rate: float = 0.5,
        masks: str = "shared",
    ):
        super().__init__()
        if n_q < 2:
            raise ValueError(f"a split quantizer has a semantic and an acoustic part: n_q={n_q} should be 2 or more")
        if masks not in ("shared", "independent"):
            raise ValueError(f"masks is {masks!r}; valid are 'shared' and 'independent'")
        self.dim, self.latent_dim, self.frame_rate = dim, dim, frame_rate
        self.n_q, self.codebook_size, self.codebook_dim = n_q, codebook_size, codebook_dim or dim
        self.dropout, self.quantization_rate, self.masks = dropout, quantization_rate, masks
        options = dict(codebook_size=codebook_size, codebook_dim=codebook_dim, decay=decay, kmeans_iters=kmeans_iters)
        self.semantic = RVQ(dim, frame_rate, n_q=1, **options)
        self.acoustic = RVQ(dim, frame_rate, n_q=n_q - 1, **options)

    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        n_q = self.check_n_q(n_q)
        batch, rate = z.shape[0], self.quantization_rate if self.training else 1.0
        unquantized = unquantized_mask(batch, rate, z.device)
        semantic = self.semantic(z, active=dropout_mask(batch, 1, 0.0, z.device), unquantized=unquantized)
        if n_q == 1:
            return semantic
        if self.masks == "independent":
            unquantized = unquantized_mask(batch, rate, z.device)
        active = dropout_mask(batch, n_q - 1, self.dropout if self.training else 0.0, z.device)
        acoustic = self.acoustic(z, n_q - 1, active, unquantized)
        (levels,) = mean_over_ranks([active.sum() / batch])  # mean number of active acoustic codebooks
        metrics = {**semantic.metrics, **{_next_codebook(name): value for name, value in acoustic.metrics.items()}}
        if metrics:
            metrics["entropy_kbps"] = semantic.metrics["entropy_kbps"] + acoustic.metrics["entropy_kbps"]
        return Quantized(
            z=semantic.z + acoustic.z,
            codes=torch.cat([semantic.codes, acoustic.codes], dim=1),
            loss=(semantic.loss + levels * acoustic.loss) / (1 + levels),  # equal weight for every codebook
            metrics=metrics,
            semantic=semantic.semantic,
            first=semantic.first,
        )

    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        n_q = self.check_n_q(n_q)
        semantic = self.semantic.encode(z)
        return semantic if n_q == 1 else torch.cat([semantic, self.acoustic.encode(z, n_q - 1)], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        self.check_n_q(codes.shape[1])
        z = self.semantic.decode(codes[:, :1])
        return z if codes.shape[1] == 1 else z + self.acoustic.decode(codes[:, 1:])

    def search_with(self, beam: int) -> None:
        for part in (self.semantic, self.acoustic):
            part.search_with(beam)
        self.beam = beam

    def codebook_state(self, n_q: int) -> list[Tensor]:
        return [*self.semantic.codebook_state(1), *(self.acoustic.codebook_state(n_q - 1) if n_q > 1 else [])]

    def _unquantized(self, x: Tensor) -> Tensor:
        return self.semantic._unquantized(x) + self.acoustic._unquantized(x)


def _next_codebook(name: str) -> str:
    """``usage/1`` of the acoustic part is ``usage/2`` of the whole."""
    kind, _, level = name.partition("/")
    return f"{kind}/{int(level) + 1}" if level else name
