"""Residual vector quantization with EMA codebooks (SoundStream, arXiv 2107.03312, section III-B).

As in Mimi (arXiv 2410.00037), the straight-through estimator is around the sum of all levels, each of which gets a
detached residual, and the threshold for replacing a code is relative to uniform usage (SoundStream: absolute).
"""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.quantizers.base import Quantized, Quantizer, dropout_mask, per_codebook_metrics, unquantized_mask
from codec.utils.distributed import mean_over_ranks, world_size


class RVQ(Quantizer):
    """Residual vector quantizer ``[B, D, F]`` -> K = n_q codes of ``codebook_size`` values each, computed in fp32.

    Args:
        codebook_dim: width of the codes, with pointwise projections without bias from D and back; None: D.
        decay: of the moving averages of usage and of assigned vectors.
        dead_below: a code is replaced when its usage falls below this fraction of uniform usage.
        check_every: training steps between two replacements.
        kmeans_iters: of the initialisation on the first training batch.
        dropout: probability, in training, that an example uses only the first n codebooks, n uniform in 1..K
            (SoundStream: 1.0; DAC: 0.5).
        dropout_choices: n is drawn among those of these that are at most K (EnCodec: five bitrates); None: 1..K.
        quantization_rate: probability, in training, that an example is quantized (Mimi, section 3.3.2: 0.5). The others
            pass through the projections only, but update the codebooks.
    """

    has_semantic = True

    def __init__(
        self,
        dim: int,
        frame_rate: float,
        n_q: int = 8,
        codebook_size: int = 1024,
        codebook_dim: int | None = None,
        decay: float = 0.99,
        dead_below: float = 0.1,
        check_every: int = 5,
        kmeans_iters: int = 50,
        dropout: float = 1.0,
        quantization_rate: float = 1.0,
        dropout_choices: Sequence[int] | int | None = None,
    ):
        super().__init__()
        self.dim, self.latent_dim, self.frame_rate = dim, dim, frame_rate
        self.n_q, self.codebook_size = n_q, codebook_size
        self.decay, self.dead_below, self.check_every = decay, dead_below, check_every
        self.kmeans_iters, self.dropout, self.quantization_rate = kmeans_iters, dropout, quantization_rate
        self.dropout_choices = [dropout_choices] if isinstance(dropout_choices, int) else dropout_choices or ()
        if min(self.dropout_choices, default=1) < 1:
            raise ValueError(f"dropout_choices is {dropout_choices}: these are numbers of codebooks, from 1 on")
        self.codebook_dim = width = codebook_dim or dim
        self.project_in = nn.Conv1d(dim, width, 1, bias=False) if codebook_dim else nn.Identity()
        self.project_out = nn.Conv1d(width, dim, 1, bias=False) if codebook_dim else nn.Identity()
        # Moving averages per step: usage[k, s] of the number of vectors assigned to code s of level k, sums[k, s] of
        # their sum; the code vector is sums / usage.
        self.register_buffer("usage", torch.zeros(n_q, codebook_size))
        self.register_buffer("sums", torch.zeros(n_q, codebook_size, width))
        self.register_buffer("codebooks", torch.randn(n_q, codebook_size, width) / math.sqrt(width))
        self.steps = 0  # of training; 0: not initialised. An int, so that reading it does not synchronise a GPU
        self.register_buffer("half_norms", None, persistent=False)  # [K, S], after precompute()

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]

    @fp32
    def forward(
        self, z: Tensor, n_q: int | None = None, active: Tensor | None = None, unquantized: Tensor | None = None
    ) -> Quantized:
        """Quantize with the first ``n_q`` codebooks (None: all).

        ``active`` ``[n_q, B]`` bool, the codebooks that each example uses, and ``unquantized`` ``[B]`` bool are drawn
        by ``dropout`` and ``quantization_rate`` if None.
        """
        n_q = self.check_n_q(n_q)
        if self.beam > 1 and not self.training:
            codes = self.encode(z, n_q)
            return Quantized(self.decode(codes), codes, z.new_zeros(()), {})
        batch, frames = z.shape[0], z.shape[-1]
        vectors = self.project_in(z).transpose(1, 2).flatten(0, 1)  # [N = B * F, C]
        training = self.training and torch.is_grad_enabled()
        if training and self.learns and self.steps == 0:
            training = self._initialise(vectors.detach())
        if active is None:
            active = dropout_mask(batch, n_q, self.dropout * self.training, z.device, self.dropout_choices)
        if unquantized is None:
            unquantized = unquantized_mask(batch, self.quantization_rate if self.training else 1.0, z.device)
        active = active.repeat_interleave(frames, dim=1)  # [K, N]

        residual, total = vectors.detach(), torch.zeros_like(vectors)
        codes, inputs, losses, first = [], [], [], None
        for k in range(n_q):
            code = self._nearest(residual, k)
            quantized = F.embedding(code, self.codebooks[k]) * active[k, :, None]
            if training:
                # Commitment of the residual that carries a gradient; to the code, not to the zero of a dropped level.
                losses.append(((vectors - total - quantized).square().mean(-1) * active[k]).sum())
                inputs.append(residual)
            codes.append(code)
            residual, total = residual - quantized, total + quantized
            first = total if first is None else first

        loss, codes = z.new_zeros(()), torch.stack(codes)  # [K, N]
        if training:
            (count,) = mean_over_ranks([active.sum().to(z.dtype)])
            loss = torch.stack(losses).sum() / count.clamp(min=1)
            if self.learns:
                self._update(torch.stack(inputs), codes, active)
        total = torch.where(unquantized.repeat_interleave(frames)[:, None], vectors.detach(), total)
        first = _straight_through(vectors, first, batch) if self.training else None
        return Quantized(
            z=self.project_out(_straight_through(vectors, total, batch)),
            codes=codes.unflatten(1, (batch, -1)).transpose(0, 1),
            loss=loss,
            metrics=self.metrics() if training and self.learns else {},
            semantic=None if first is None else self.project_out(first),
            first=first,
        )

    @fp32
    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        residual, codes = self.project_in(z).transpose(1, 2).flatten(0, 1), []
        if self.beam > 1:
            codes = self._search(residual, self.check_n_q(n_q))
        else:
            for k in range(self.check_n_q(n_q)):
                codes.append(self._nearest(residual, k))
                residual = residual - F.embedding(codes[-1], self.codebooks[k])
        return torch.stack(codes).unflatten(1, (z.shape[0], -1)).transpose(0, 1)

    def _search(self, vectors: Tensor, n_q: int) -> list[Tensor]:
        """Codes ``[N]`` of each level for vectors ``[N, C]``: of the ``beam`` best sums of codes of the levels so far,
        each is continued with every code of the next one (multi-path encoding; Liu et al., arXiv 1509.05195)."""
        residual, paths = vectors[:, None], vectors.new_zeros(len(vectors), 1, 0, dtype=torch.int64)  # [N, W, ...]
        for book in self.codebooks[:n_q]:
            error = residual.square().sum(-1, keepdim=True) - 2 * residual @ book.t() + book.square().sum(-1)
            best = error.flatten(1).topk(min(self.beam, error[0].numel()), largest=False).indices  # [N, W']
            path, code = best // len(book), best % len(book)
            residual = residual.take_along_dim(path[..., None], 1) - F.embedding(code, book)
            paths = torch.cat([paths.take_along_dim(path[..., None], 1), code[..., None]], dim=-1)
        return list(paths[:, 0].unbind(-1))

    @fp32
    def decode(self, codes: Tensor) -> Tensor:
        self.check_n_q(codes.shape[1])
        y = sum(F.embedding(code, self.codebooks[k]) for k, code in enumerate(codes.unbind(1)))  # [B, F, C]
        return self.project_out(y.transpose(1, 2))

    def search_with(self, beam: int) -> None:
        super().search_with(min(beam, 1))
        self.beam = beam

    def metrics(self) -> dict[str, Tensor]:
        """Statistics of the moving averages; ``usage`` is the fraction of codes that are not dead, and ``frames`` the
        number of frames whose plain mean would vary as much (Kish's effective size)."""
        first = self.decay ** (2 * self.steps)  # squared weight of the first step, from k-means
        squares = first + (1 - first) * (1 - self.decay) / (1 + self.decay)  # sum of those of all steps
        counts = self.usage * world_size() / squares
        threshold = self.dead_below * counts.mean(-1, keepdim=True)
        return per_codebook_metrics(counts, self.frame_rate, threshold)

    def codebook_state(self, n_q: int) -> list[Tensor]:
        return [*self.project_out.parameters(), self.codebooks[:n_q]]

    def precompute(self) -> None:
        """Precompute the norms of the codes, which may not change afterwards."""
        self.half_norms = self.codebooks.square().sum(-1) / 2

    def _unquantized(self, x: Tensor) -> Tensor:
        return self.project_out(self.project_in(x))

    def _nearest(self, x: Tensor, k: int) -> Tensor:
        """x ``[N, C]`` -> index of the nearest code of level k ``[N]``."""
        book = self.codebooks[k]
        half_norms = book.square().sum(-1) / 2 if self.half_norms is None else self.half_norms[k]
        return torch.addmm(half_norms, x, book.t(), alpha=-1).argmin(-1)

    @torch.no_grad()
    def _update(self, inputs: Tensor, codes: Tensor, active: Tensor) -> None:
        """One step of the moving averages from inputs ``[K, N, C]`` and codes ``[K, N]``, with one all-reduce."""
        k, _, width = inputs.shape
        flat = (codes + torch.arange(k, device=codes.device)[:, None] * self.codebook_size).flatten()  # [K * N]
        weight = active.flatten().float()
        new = inputs.new_zeros(k * self.codebook_size, width + 1)  # the sums, and the counts in the last column
        rows = torch.cat([inputs.flatten(0, 1), torch.ones_like(weight)[:, None]], dim=-1)
        new.index_add_(0, flat, rows * weight[:, None])
        if world_size() > 1:
            dist.all_reduce(new)
        new = new.view(k, self.codebook_size, width + 1)
        finite = new.sum().isfinite()  # else skip the step on all ranks: non-finite averages would never recover
        self.sums[:k].lerp_(torch.where(finite, new[..., :-1], self.sums[:k]), 1 - self.decay)
        self.usage[:k].lerp_(torch.where(finite, new[..., -1], self.usage[:k]), 1 - self.decay)
        self.steps += 1
        if self.check_every and self.steps % self.check_every == 0:
            self._replace_dead(inputs, active)
        # An unused code does not move, as both averages decay alike; the floor avoids 0 / 0.
        floor = 1e-5 * self.usage.mean(-1, keepdim=True).clamp(min=1e-12)
        means = self.sums / self.usage.clamp(min=1e-20)[..., None]
        self.codebooks.copy_(torch.where((self.usage > floor)[..., None], means, self.codebooks))

    @torch.no_grad()
    def _replace_dead(self, inputs: Tensor, active: Tensor) -> None:
        """Give dead codes uniform usage and distinct vectors of the batch (same on all ranks), if there are enough."""
        k = inputs.shape[0]
        uniform = self.usage[:k].mean(-1, keepdim=True)  # [K, 1]
        dead = self.usage[:k] < self.dead_below * uniform
        if not bool(dead.any()):
            return
        picks = torch.full_like(self.codebooks[:k], torch.nan)  # NaN: none left (equal codes would die)
        for level in range(k):
            codes = dead[level].nonzero()[:, 0]
            vectors = inputs[level][active[level]]
            count = min(len(codes), len(vectors))
            picks[level, codes[:count]] = vectors[torch.randperm(len(vectors), device=vectors.device)[:count]]
        if world_size() > 1:
            dist.broadcast(picks, src=0)
        found = picks.isfinite().all(-1)
        self.sums[:k] = torch.where(found[..., None], picks * uniform[..., None], self.sums[:k])
        self.usage[:k] = torch.where(found, uniform.expand_as(dead), self.usage[:k])

    @torch.no_grad()
    def _initialise(self, vectors: Tensor) -> bool:
        """k-means of each level's residual, by rank 0 for all; False, and no change, for non-finite vectors."""
        residual = vectors
        if world_size() > 1:
            gathered = [torch.empty_like(vectors) for _ in range(world_size())]
            dist.all_gather(gathered, vectors)
            residual = torch.cat(gathered)
        if not bool(residual.isfinite().all()):
            return False
        for k in range(self.n_q):
            means, sizes = kmeans(residual, self.codebook_size, self.kmeans_iters)
            self.codebooks[k] = means
            self.usage[k] = sizes  # an empty cluster is a dead code, replaced at the next check
            residual = residual - F.embedding(self._nearest(residual, k), means)
        if world_size() > 1:
            for buffer in (self.codebooks, self.usage):
                dist.broadcast(buffer, src=0)
        self.sums.copy_(self.codebooks * self.usage[..., None])
        return True


def _straight_through(vectors: Tensor, quantized: Tensor, batch: int) -> Tensor:
    """``[N, C]`` twice -> values of ``quantized`` with the gradient of ``vectors``, ``[B, C, F]``."""
    return (vectors + (quantized - vectors).detach()).unflatten(0, (batch, -1)).transpose(1, 2)


def kmeans(x: Tensor, clusters: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means of x ``[N, C]`` from random vectors of x -> means ``[clusters, C]``, float sizes ``[clusters]``.

    Vectors are repeated with a little noise if N < clusters. The mean of an empty cluster does not change.
    """
    order = torch.randperm(len(x), device=x.device)
    means = x[order.repeat(-(-clusters // len(x)))[:clusters]]
    if len(x) < clusters:
        means = means + 1e-3 * x.std().nan_to_num() * torch.randn_like(means)
    for _ in range(iterations):
        nearest = torch.addmm(means.square().sum(-1) / 2, x, means.t(), alpha=-1).argmin(-1)
        sizes = torch.bincount(nearest, minlength=clusters).to(x.dtype)
        sums = torch.zeros_like(means).index_add_(0, nearest, x)
        means = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], means)
    return means, sizes
