"""The contract of a quantizer, discrete or continuous."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.layers.precision import fp32

KINDS = ("pre", "post")  # of continuous latents: before and after quantization


class Quantized(NamedTuple):
    """What a quantizer makes of latents ``[B, D, F]``."""

    z: Tensor
    """``[B, D, F]``, what the decoder reads; gradients pass straight through."""
    codes: Tensor | None
    """``[B, K, F]`` int64, or None for a continuous bottleneck."""
    loss: Tensor
    """scalar: commitment (or KL); the training step gives it its weight."""
    metrics: dict[str, Tensor]
    """scalars to log, by name."""
    semantic: Tensor | None = None
    """``[B, D, F]``, what the first codebook alone gives, in training: what a semantic teacher teaches; None where
    there is no such thing."""


class Quantizer(nn.Module):
    """Latents ``[B, D, F]`` -> :class:`Quantized`.

    Attributes:
        dim: channels D of the latents, between encoder and decoder.
        latent_dim: channels C of what a latent generative model works on (:meth:`to_latents`).
        n_q: number of codebooks K; 0 for a continuous bottleneck.
        codebook_size: codes per codebook; 0 for a continuous bottleneck.
        frame_rate: latent frames per second (Hz), for the bitrates.
        has_semantic: whether, in training, there is the output of a first codebook by itself.
    """

    dim: int
    latent_dim: int
    n_q: int
    codebook_size: int
    frame_rate: float
    has_semantic: bool = False

    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        """Quantize with the first ``n_q`` codebooks (None: all; in training, the quantizer's own dropout)."""
        raise NotImplementedError

    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        """``[B, D, F] -> [B, n_q, F]`` int64."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """``[B, k, F]`` int64, any 1 <= k <= K -> ``[B, D, F]``."""
        raise NotImplementedError

    def bitrate(self, n_q: int | None = None) -> float:
        """Nominal bitrate of the first ``n_q`` codebooks in kbit/s: every code costs log2(codebook size) bits."""
        raise NotImplementedError

    def codebook_state(self, n_q: int) -> list[Tensor]:
        """The tensors that give the codes of the first ``n_q`` codebooks their meaning: what ``decode`` reads."""
        return [*self.parameters(), *self.buffers()]

    @fp32
    def to_latents(self, z: Tensor, kind: str = "pre") -> Tensor:
        """What the encoder gives ``[B, D, F]`` -> what a latent generative model works on ``[B, C, F]``.

        Args:
            kind: "pre", before quantization, or "post", the sum of the quantized embeddings (NaturalSpeech 2's latent,
                arXiv 2304.09116; of all codebooks). A continuous bottleneck has "pre" only.

        Raises:
            ValueError: if there are no latents of this kind, or "post" is asked for in training, when codebooks move.
        """
        self.check_kind(kind)
        if kind == "pre":
            return self._inward(z)
        if self.training:
            raise ValueError("latents after quantization are those of a codec in eval mode: call codec.eval() first")
        return self(z).z

    @fp32
    def from_latents(self, x: Tensor, kind: str = "pre") -> Tensor:
        """Latents ``[B, C, F]`` of :meth:`to_latents` -> what the decoder reads ``[B, D, F]``, without codebooks.

        Raises:
            ValueError: if there are no latents of this kind, or they have another number of channels.
        """
        self.check_kind(kind)
        if x.ndim != 3 or x.shape[1] != self.latent_dim:
            raise ValueError(f"latents of this codec are [B, {self.latent_dim}, F], got {list(x.shape)}")
        return self._outward(x) if kind == "pre" else x

    def check_kind(self, kind: str) -> None:
        """Raises ValueError if there are no latents of this kind."""
        if kind not in KINDS:
            raise ValueError(f"there are no latents of kind {kind!r}: choose {' or '.join(KINDS)}")

    def _inward(self, z: Tensor) -> Tensor:
        """``[B, D, F] -> [B, C, F]`` before quantization: the latents themselves, where nothing makes them fewer."""
        return z

    def _outward(self, x: Tensor) -> Tensor:
        """``[B, C, F] -> [B, D, F]``, past the codebooks: through the projections around them, which alone lead to
        what the decoder knows."""
        raise NotImplementedError

    def check_n_q(self, n_q: int | None) -> int:
        """``n_q``, or all codebooks for None.

        Raises:
            ValueError: if this quantizer has fewer codebooks, or ``n_q`` < 1.
        """
        if n_q is None:
            return self.n_q
        if not 1 <= n_q <= self.n_q:
            has = f"has {self.n_q} codebooks: choose 1 to {self.n_q}" if self.n_q else "has no codebooks (continuous)"
            raise ValueError(f"n_q={n_q}, but the quantizer {has}")
        return n_q


class Continuous(Quantizer):
    """A bottleneck without codes: no codebooks, no bitrate, and latents before quantization only."""

    def __init__(self, dim: int, frame_rate: float, latent_dim: int):
        super().__init__()
        self.dim, self.frame_rate, self.latent_dim = dim, frame_rate, latent_dim
        self.n_q = self.codebook_size = 0

    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        """Raises ValueError."""
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
            raise ValueError(f"{type(self).__name__} is continuous: nothing quantizes its latents, their kind is pre")


def dropout_mask(batch: int, n_q: int, share: float, device: torch.device) -> Tensor:
    """Quantizer dropout (SoundStream, section III-B): ``[n_q, B]`` bool, true where an example uses a codebook.

    A ``share`` of the examples uses the first n codebooks only, n uniform in 1..n_q for each; the others use all.
    """
    used = torch.full((batch,), n_q, device=device)
    if share > 0:
        fewer = torch.randint(1, n_q + 1, (batch,), device=device)
        used = torch.where(torch.rand(batch, device=device) < share, fewer, used)
    return torch.arange(n_q, device=device)[:, None] < used


def bypass_mask(batch: int, rate: float, device: torch.device) -> Tensor:
    """``[B]`` bool, true for the examples that are not quantized: each with probability 1 - ``rate``."""
    if rate >= 1:
        return torch.zeros(batch, dtype=torch.bool, device=device)
    return torch.rand(batch, device=device) >= rate


def code_entropy(counts: Tensor) -> Tensor:
    """Entropy in bits of each row of code counts ``[..., S]`` -> ``[...]``; 0 for a row without counts."""
    p = counts / counts.sum(-1, keepdim=True).clamp(min=1e-12)
    return torch.special.entr(p).sum(-1) / torch.log(torch.tensor(2.0))


def codebook_statistics(counts: Tensor, used: float = 0.0) -> dict[str, Tensor]:
    """Usage, perplexity and entropy of each codebook from code counts ``[K, S]``; every value ``[K]``.

    ``usage`` is the share of codes with a count above ``used``, ``entropy`` is in bits, ``perplexity`` is 2 ** entropy.
    """
    entropy = code_entropy(counts)
    return {"usage": (counts > used).float().mean(-1), "perplexity": 2**entropy, "entropy": entropy}


def per_codebook_metrics(counts: Tensor, frame_rate: float, used: float = 0.0) -> dict[str, Tensor]:
    """The scalars that a discrete quantizer logs: ``usage/1 ...``, ``perplexity/1 ...``, ``entropy/1 ...`` and the
    entropy bitrate in kbit/s, the rate that an ideal entropy coder without context would reach."""
    statistics = codebook_statistics(counts, used)
    metrics = {f"{name}/{k + 1}": v for name, values in statistics.items() for k, v in enumerate(values)}
    metrics["entropy_kbps"] = statistics["entropy"].sum() * frame_rate / 1000
    return metrics
