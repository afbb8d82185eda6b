"""A bottleneck with noise of a given strength: sigma-VAE, as in LatentLM (arXiv 2412.08635) and VibeVoice (2508.19205).

The encoder gives the mean only. In training, noise is added whose standard deviation is itself drawn for each example
from N(0, C_sigma): the decoder learns to forgive errors of all sizes, as those of a generative model will be.
VibeVoice's C_sigma is 0.625, on latents of a scale of their own. Here the scale is held, or else latents would grow
until the noise is small beside them: the channels of every frame have a mean square of 1. That takes one degree of
freedom of C, has no state that processes would have to agree on, and is the same in training and after it.
"""

import torch
from torch import Tensor, nn

from codec.layers.precision import fp32
from codec.quantizers.base import Continuous, Quantized


class SigmaVAE(Continuous):
    """``[B, D, F]`` -> C channels with a mean square of 1 in every frame, and in training noise; there is no loss.

    Args:
        dim: latent channels D; pointwise convolutions lead to C and back.
        frame_rate: in Hz.
        channels: C.
        std: C_sigma, the standard deviation of the noise's standard deviation (whose sign means nothing).
    """

    def __init__(self, dim: int, frame_rate: float, channels: int = 32, std: float = 0.25):
        super().__init__(dim, frame_rate, channels)
        self.std = std
        self.project_in = nn.Conv1d(dim, channels, 1)
        self.project_out = nn.Conv1d(channels, dim, 1)

    @fp32
    def forward(self, z: Tensor, n_q: int | None = None) -> Quantized:
        self.check_n_q(n_q)
        x, metrics = self._inward(z), {}
        if self.training:
            power = x.detach().square().mean((0, 2))  # [C]; a channel near 0 carries nothing past the noise
            metrics = {f"power/{c}": value for c, value in enumerate(power, start=1)}
            x = x + self.std * torch.randn(len(x), 1, 1, device=x.device) * torch.randn_like(x)
        return Quantized(self.project_out(x), None, z.new_zeros(()), metrics)

    def _inward(self, z: Tensor) -> Tensor:
        x = self.project_in(z)
        return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()

    def _outward(self, x: Tensor) -> Tensor:
        return self.project_out(x)
