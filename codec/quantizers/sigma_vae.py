"""Sigma-VAE bottleneck: noise of random strength (LatentLM, arXiv 2412.08635; VibeVoice, arXiv 2508.19205).

The encoder predicts the mean only; the noise's standard deviation is drawn for each example from a normal distribution
with mean 0 and standard deviation C_sigma (VibeVoice: 0.625, relative to its own latent scale). Here the channels of
every frame are normalised to a mean square of 1, or latents would grow until the noise is negligible.
"""

import torch
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.quantizers.base import Continuous, Quantized


class SigmaVAE(Continuous):
    """Sigma-VAE ``[B, D, F]`` -> C channels with a mean square of 1 in every frame; noise in training; no loss.

    Pointwise convolutions project from D to C = ``channels`` and back. ``std`` is C_sigma.
    """

    def __init__(self, dim: int, frame_rate: float, channels: int = 32, std: float = 0.25):
        super().__init__(dim, frame_rate, channels)
        self.std = std
        self.project_in = nn.Conv1d(dim, channels, 1)
        self.project_out = nn.Conv1d(channels, dim, 1)

    @fp32
    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        self.check_n_q(n_q)
        x, metrics = self._latents(z), {}
        if self.training:
            power = x.detach().square().mean((0, 2))  # [C]; channels near 0 carry no information
            metrics = {f"power/{c}": value for c, value in enumerate(power, start=1)}
            x = x + self.std * torch.randn(len(x), 1, 1, device=x.device) * torch.randn_like(x)
        return Quantized(self.project_out(x), None, z.new_zeros(()), metrics)

    def _latents(self, z: Tensor) -> Tensor:
        x = self.project_in(z)
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    def _unquantized(self, x: Tensor) -> Tensor:
        return self.project_out(x)
