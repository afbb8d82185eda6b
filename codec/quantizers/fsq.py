"""Finite scalar quantization (arXiv 2309.15505), optionally residual.

Each channel is bounded by tanh and rounded to L levels; stages after the first quantize the residual on a finer grid.
Unlike the paper, which shifts even numbers of levels by half a step, levels divide [-1, 1] evenly, ends included.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.quantizers.base import Quantized, Quantizer, dropout_mask, per_codebook_metrics


class FSQ(Quantizer):
    """Finite scalar quantizer ``[B, D, F]`` -> n_q codes of ``prod(levels)`` values each; n_q = 1 is plain FSQ.

    Pointwise convolutions project from D to ``len(levels)`` channels and back; levels (8, 5, 5, 5) give 1,000 codes.
    ``dropout`` is the probability, in training, that an example uses only the first n stages, n uniform in 1..n_q.
    """

    def __init__(self, dim: int, frame_rate: float, levels: Sequence[int], n_q: int = 1, dropout: float = 1.0):
        super().__init__()
        if min(levels) < 2:
            raise ValueError(f"FSQ needs at least 2 levels per channel, got {list(levels)}")
        self.dim, self.frame_rate, self.n_q, self.dropout = dim, frame_rate, n_q, dropout
        self.codebook_size, self.latent_dim = math.prod(levels), dim
        self.project_in = nn.Conv1d(dim, len(levels), 1)
        self.project_out = nn.Conv1d(len(levels), dim, 1)
        steps = torch.tensor(levels) - 1  # between the lowest and the highest level
        place = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0)  # mixed-radix place values
        self.register_buffer("steps", steps[:, None], persistent=False)  # [C, 1]
        self.register_buffer("place", place[:, None], persistent=False)  # [C, 1]

    def _quantize(self, x: Tensor, n_q: int) -> tuple[Tensor, Tensor]:
        """Bounded x ``[B, C, F]`` in [-1, 1] -> codes ``[B, n_q, F]`` and values ``[n_q, B, C, F]`` of each stage."""
        codes, values, residual = [], [], x
        width = torch.ones_like(self.steps, dtype=x.dtype)  # half the range of a stage
        for _ in range(n_q):
            index = ((residual / width + 1) / 2 * self.steps).round().clamp(min=0)
            index = torch.minimum(index, self.steps.to(x.dtype))
            value = (index / self.steps * 2 - 1) * width
            codes.append((index.long() * self.place).sum(1))
            values.append(value)
            residual, width = residual - value, width / self.steps
        return torch.stack(codes, dim=1), torch.stack(values)

    @fp32
    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        n_q = self.check_n_q(n_q)
        x = torch.tanh(self.project_in(z))
        codes, values = self._quantize(x.detach(), n_q)
        if self.training and self.dropout and n_q > 1:
            active = dropout_mask(z.shape[0], n_q, self.dropout, z.device)
            values = values * active[:, :, None, None]
        y = x + (values.sum(0) - x).detach()
        metrics = self._metrics(codes) if self.training else {}
        return Quantized(self.project_out(y), codes, z.new_zeros((), dtype=torch.float32), metrics)

    def _metrics(self, codes: Tensor) -> dict[str, Tensor]:
        """Codebook statistics of this batch alone."""
        counts = torch.zeros(codes.shape[1], self.codebook_size, device=codes.device)
        flat = codes.transpose(0, 1).flatten(1)  # [K, B * F]
        counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype))
        return per_codebook_metrics(counts, self.frame_rate)

    @fp32
    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        return self._quantize(torch.tanh(self.project_in(z)), self.check_n_q(n_q))[0]

    @fp32
    def decode(self, codes: Tensor) -> Tensor:
        self.check_n_q(codes.shape[1])
        y, width = 0.0, torch.ones_like(self.steps, dtype=torch.float32)
        for code in codes.unbind(1):
            index = code[:, None] // self.place % (self.steps + 1)  # [B, C, F]
            y = y + (index / self.steps * 2 - 1) * width
            width = width / self.steps
        return self.project_out(y)

    def _unquantized(self, x: Tensor) -> Tensor:
        return self.project_out(torch.tanh(self.project_in(x)))
