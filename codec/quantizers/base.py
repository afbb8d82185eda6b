"""Interface of a quantizer, discrete or continuous."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.layers.precision import fp32

KINDS = ("pre", "post")  # of continuous latents: before and after quantization


class Quantized(NamedTuple):
    """The output of a quantizer for latents ``[B, D, F]``."""

    z: Tensor  # [B, D, F], input of the decoder; straight-through gradient
    codes: Tensor | None  # [B, K, F] int64; None for a continuous bottleneck
    loss: Tensor  # scalar: commitment (or KL), weighted by the training step
    metrics: dict[str, Tensor]  # scalars to log, by name
    semantic: Tensor | None = None  # [B, D, F], output of the first codebook, in training: for semantic distillation
    first: Tensor | None = None  # [B, codebook_dim, F], the same before its projection to D channels


class Quantizer(nn.Module):
    """Latents ``[B, D, F]`` -> :class:`Quantized`."""

    dim: int  # channels D of the latents, between encoder and decoder
    latent_dim: int  # channels C of the latents for a generative model (to_latents)
    n_q: int  # codebooks K; 0 for a continuous bottleneck
    codebook_size: int  # codes per codebook; 0 for a continuous bottleneck
    frame_rate: float  # latent frames per second (Hz), for the bitrates
    has_semantic: bool = False  # whether Quantized.semantic and first exist in training
    codebook_dim: int  # width of the codes, if has_semantic
    beam: int = 1  # paths of the search for codes, outside training
    learns: bool = True  # False: codebooks and their statistics do not change in training (freeze=)

    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        """Quantize with the first ``n_q`` codebooks (None: all; in training, with quantizer dropout)."""
        raise NotImplementedError

    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        """``[B, D, F] -> [B, n_q, F]`` int64."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """``[B, k, F]`` int64, any 1 <= k <= K -> ``[B, D, F]``."""
        raise NotImplementedError

    def bitrate(self, n_q: int | None = None) -> float:
        """Nominal bitrate of the first ``n_q`` codebooks in kbit/s; NaN for a continuous bottleneck."""
        return self.check_n_q(n_q) * math.log2(self.codebook_size) * self.frame_rate / 1000

    def search_with(self, beam: int) -> None:
        """Search codes along the ``beam`` best paths, outside training; raises ValueError unless it is 1 or, with
        residual codebooks, more."""
        if beam != 1:
            raise ValueError(f"a beam of {beam} needs residual codebooks and at least one path: leave it out")

    def codebook_state(self, n_q: int) -> list[Tensor]:
        """The tensors that ``decode`` reads for the first ``n_q`` codebooks."""
        return [*self.parameters(), *self.buffers()]

    @fp32
    def to_latents(self, z: Tensor, kind: str = "pre") -> Tensor:
        """Output of the encoder ``[B, D, F]`` -> latents for a generative model ``[B, C, F]``.

        "pre" is before quantization; "post", the sum of the embeddings of all codebooks (NaturalSpeech 2, arXiv
        2304.09116), raises ValueError for a continuous bottleneck and in training, when codebooks change.
        """
        self.check_kind(kind)
        if kind == "pre":
            return self._latents(z)
        if self.training:
            raise ValueError("latents after quantization are those of a codec in eval mode: call codec.eval() first")
        return self(z).z

    @fp32
    def from_latents(self, x: Tensor, kind: str = "pre") -> Tensor:
        """Latents ``[B, C, F]`` of :meth:`to_latents` -> input of the decoder ``[B, D, F]``, without codebooks."""
        self.check_kind(kind)
        if x.ndim != 3 or x.shape[1] != self.latent_dim:
            raise ValueError(f"latents of this codec are [B, {self.latent_dim}, F], got {list(x.shape)}")
        return self._unquantized(x) if kind == "pre" else x

    def check_kind(self, kind: str) -> None:
        """Raises ValueError if the quantizer has no latents of this kind."""
        if kind not in KINDS:
            raise ValueError(f"there are no latents of kind {kind!r}: choose {' or '.join(KINDS)}")

    def _latents(self, z: Tensor) -> Tensor:
        """``[B, D, F] -> [B, C, F]``, before quantization."""
        return z

    def _unquantized(self, x: Tensor) -> Tensor:
        """``[B, C, F] -> [B, D, F]``: the projections around the codebooks, without quantization between them."""
        raise NotImplementedError

    def check_n_q(self, n_q: int | None) -> int:
        """``n_q``, or all codebooks for None; raises ValueError unless 1 <= n_q <= K."""
        if n_q is None:
            return self.n_q
        if not 1 <= n_q <= self.n_q:
            has = f"has {self.n_q} codebooks: choose 1 to {self.n_q}" if self.n_q else "has no codebooks (continuous)"
            raise ValueError(f"n_q={n_q}, but the quantizer {has}")
        return n_q


class Continuous(Quantizer):
    """A bottleneck without codes, whose only latents are those before quantization."""

    def __init__(self, dim: int, frame_rate: float, latent_dim: int):
        super().__init__()
        self.dim, self.frame_rate, self.latent_dim = dim, frame_rate, latent_dim
        self.n_q = self.codebook_size = 0

    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        """Raises ValueError: there are no codes."""
        raise ValueError(
            f"{type(self).__name__} is continuous and has no codes: use its latents (Codec.latents, codec.latents), or "
            "train with quantizer=rvq"
        )

    decode = encode

    def bitrate(self, n_q: int | None = None) -> float:
        return float("nan")

    def check_kind(self, kind: str) -> None:
        super().check_kind(kind)
        if kind == "post":
            raise ValueError(f"{type(self).__name__} is continuous and has latents of kind pre only")


def dropout_mask(batch: int, n_q: int, rate: float, device: torch.device, among: Sequence[int] = ()) -> Tensor:
    """Quantizer dropout (SoundStream, section III-B): ``[n_q, B]`` bool, true where an example uses a codebook.

    With probability ``rate`` an example uses the first n codebooks only, n uniform in 1..n_q, or in those of
    ``among`` that are at most n_q.
    """
    used = torch.full((batch,), n_q, device=device)
    if rate > 0:
        among = [n for n in among if n <= n_q]
        drawn = torch.randint(len(among) or n_q, (batch,), device=device)
        fewer = sum(n * (drawn == i) for i, n in enumerate(among)) if among else 1 + drawn
        used = torch.where(torch.rand(batch, device=device) < rate, fewer, used)
    return torch.arange(n_q, device=device)[:, None] < used


def unquantized_mask(batch: int, quantization_rate: float, device: torch.device) -> Tensor:
    """``[B]`` bool, true for examples that are not quantized: each with probability 1 - ``quantization_rate``."""
    if quantization_rate >= 1:
        return torch.zeros(batch, dtype=torch.bool, device=device)
    return torch.rand(batch, device=device) >= quantization_rate


def codebook_statistics(counts: Tensor, threshold: Tensor | float = 0.0) -> dict[str, Tensor]:
    """Statistics ``[K]`` of codebooks from counts ``[K, S]`` of their codes in frames that count as independent.

    ``frames``; ``usage``, the fraction of codes with a count above ``threshold`` (``[K, 1]``), and ``uniform_usage``,
    that expected of equally frequent codes in as many frames; ``entropy`` in bits (0 without counts), corrected for
    codes not seen (:func:`entropy`), and ``perplexity``, 2 ** entropy.
    """
    frames, bits = counts.sum(-1), entropy(counts.round())
    seen = torch.as_tensor(threshold, device=counts.device).floor() + torch.ones_like(frames)[:, None]
    expected = 1 - torch.special.gammaincc(seen, frames[:, None] / counts.shape[-1])[:, 0]  # Poisson
    usage = (counts > threshold).float().mean(-1)
    return {"usage": usage, "uniform_usage": expected, "perplexity": 2**bits, "entropy": bits, "frames": frames}


def entropy(counts: Tensor) -> Tensor:
    """Entropy in bits ``[K]`` from whole counts ``[K, S]``, at most log2 S (Chao, Wang and Jost, Methods in Ecology and
    Evolution 4(11), 2013): the part of codes not seen is from the numbers of those seen once and twice.

    ``bench/entropy.py`` compares estimators: of 2,048 codes in 2,500 frames this one is 0.1 % low if they are uniform,
    0.8 % if Zipf's (plug-in: 6 %, 6 %; Miller and Madow: 2 %, 4 %).
    """
    total = counts.sum(-1, keepdim=True).clamp(min=1)
    seen = torch.special.digamma(total) - torch.special.digamma(counts.clamp(min=1))
    once, twice = ((counts == n).sum(-1, keepdim=True).to(total.dtype) for n in (1, 2))
    rest = torch.where(twice > 0, (total - 1) * once, (total - 1) * (once - 1).clamp(min=0))
    twice = torch.where(twice > 0, 2 * twice, 2.0)
    rate = twice / (rest + twice)  # their A; the series of A by an integral, whose logarithmic steps suit any A
    x = torch.exp(torch.arange(-14, 4, 0.1, device=counts.device))
    series = (1 - rate) * x * torch.exp(-x) / (rate - (1 - rate) * torch.expm1(-x / total)) / total
    nats = (counts * seen).sum(-1) / total[:, 0] + once[:, 0] * 0.1 * series.sum(-1) / total[:, 0]
    return (nats / math.log(2)).clamp(0, math.log2(counts.shape[-1]))


def per_codebook_metrics(counts: Tensor, frame_rate: float, threshold: Tensor | float = 0.0) -> dict[str, Tensor]:
    """:func:`codebook_statistics` as scalars ``usage/1 ...``, the bitrate ``entropy_kbps`` (kbit/s) of an ideal entropy
    coder without context, and ``frames`` and ``uniform_usage`` of the codebook with the fewest frames."""
    statistics = codebook_statistics(counts, threshold)
    least = {name: statistics.pop(name).min() for name in ("frames", "uniform_usage")}
    metrics = {f"{name}/{k + 1}": v for name, values in statistics.items() for k, v in enumerate(values)}
    metrics["entropy_kbps"] = statistics["entropy"].sum() * frame_rate / 1000
    return metrics | least
