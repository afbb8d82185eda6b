"""A variational bottleneck (arXiv 1312.6114) with free bits (arXiv 1606.04934, appendix C.8), small on request.

What latent diffusion models work on (arXiv 2112.10752): a few channels, held near a standard normal distribution by a
small weight. Without codes there is no bitrate; the KL divergence in nats per frame, times the frame rate over ln 2, is
the most in bit/s that the noisy latents tell the decoder.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.quantizers.base import Continuous, Quantized

LEAST = 1e-4  # standard deviation of a posterior, so that its logarithm is finite


class VAE(Continuous):
    """``[B, D, F]`` -> mean and standard deviation of C channels, a draw from them in training, the mean otherwise.

    The loss is ``weight`` times the KL divergence from a standard normal distribution in nats: mean over batch and
    frames, SUM over channels, so that a channel costs the same however many there are.

    Args:
        dim: latent channels D; pointwise convolutions lead from there to 2 C numbers, and from C back.
        frame_rate: in Hz.
        channels: C.
        weight: of the KL divergence, which the training step multiplies by the commitment weight of the losses.
        free_bits: nats per channel and frame that cost nothing: below it, the mean over the batch of a channel's KL has
            no gradient, and the channel is not pressed into silence.
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
        std = F.softplus(spread) + LEAST
        kl = ((mean.square() + std.square() - 1) / 2 - std.log()).mean((0, 2))  # [C], nats
        metrics = {"kl": kl.detach().sum()} | {f"kl/{c}": value for c, value in enumerate(kl.detach(), start=1)}
        loss = self.weight * kl.clamp(min=self.free_bits).sum()
        return Quantized(self.project_out(mean + std * torch.randn_like(mean)), None, loss, metrics)

    def _inward(self, z: Tensor) -> Tensor:
        return self.project_in(z)[:, : self.latent_dim]

    def _outward(self, x: Tensor) -> Tensor:
        return self.project_out(x)
