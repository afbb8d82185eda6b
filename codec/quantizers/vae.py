"""Variational bottleneck (arXiv 1312.6114) with free bits (arXiv 1606.04934, appendix C.8) and a small KL weight.

As in latent diffusion models (arXiv 2112.10752). The KL divergence in nats per frame * frame rate / ln 2 bounds the
information in bit/s of the noisy latents.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.quantizers.base import Continuous, Quantized

MIN_STD = 1e-4  # of the posterior, for a finite logarithm


class VAE(Continuous):
    """VAE bottleneck ``[B, D, F]`` -> C channels: a sample of the posterior in training, its mean otherwise.

    Pointwise convolutions project from D to 2 C (mean and spread) and from C back. The loss is ``weight`` times the KL
    divergence from a standard normal distribution in nats, mean over batch and frames, sum over channels. A channel
    whose mean KL is below ``free_bits`` (nats per frame) has no KL gradient.
    """

    def __init__(self, dim: int, frame_rate: float, channels: int = 32, weight: float = 0.01, free_bits: float = 0.1):
        super().__init__(dim, frame_rate, channels)
        self.weight, self.free_bits = weight, free_bits
        self.project_in = nn.Conv1d(dim, 2 * channels, 1)
        self.project_out = nn.Conv1d(channels, dim, 1)

    @fp32
    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        self.check_n_q(n_q)
        mean, spread = self.project_in(z).chunk(2, dim=1)
        if not self.training:
            return Quantized(self.project_out(mean), None, z.new_zeros(()), {})
        std = F.softplus(spread) + MIN_STD
        kl = ((mean.square() + std.square() - 1) / 2 - std.log()).mean((0, 2))  # [C], nats
        metrics = {"kl": kl.detach().sum()} | {f"kl/{c}": value for c, value in enumerate(kl.detach(), start=1)}
        loss = self.weight * kl.clamp(min=self.free_bits).sum()
        return Quantized(self.project_out(mean + std * torch.randn_like(mean)), None, loss, metrics)

    def _latents(self, z: Tensor) -> Tensor:
        return self.project_in(z)[:, : self.latent_dim]

    def _unquantized(self, x: Tensor) -> Tensor:
        return self.project_out(x)
