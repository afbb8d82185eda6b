"""DiT (arXiv 2212.09748), a transformer conditioned on t, over latents as in F5-TTS (arXiv 2410.06885, section 3.2).

Rotary positions (arXiv 2104.09864), RMS norms of queries and keys (after arXiv 2302.05442, section 2). Unlike F5-TTS:
no convolution for positions, and frames can also attend to tokens without a position.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.flow.conditioning import Embeddings
from codec.layers.precision import fp32
from codec.layers.transformer import rotary, rotate_complex


class DiT(nn.Module):
    """Diffusion transformer: noisy and known latents, span mask, time and embeddings -> a prediction ``[B, C, F]``.

    Adaptive layer norm with zero initialisation: every block begins as the identity, the output as 0.

    Args:
        channels: C of the latents.
        width: W of the network; a multiple of 2 ``heads``.
        hidden: width of the feed-forward layers.
        base: of the rotary frequencies.
    """

    def __init__(self, channels: int, width: int, layers: int, heads: int, hidden: int, base: float = 10_000.0):
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"{heads} heads do not divide a width of {width} into pairs: choose other heads")
        self.channels, self.width, self.base, self.head_dim = channels, width, base, width // heads
        self.enter = nn.Linear(2 * channels + 1, width)
        self.time = TimeEmbedding(width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.modulation = _zero(nn.Linear(width, 2 * width))
        self.leave = _zero(nn.Linear(width, channels))

    def forward(
        self, x: Tensor, known: Tensor, span: Tensor, t: Tensor, valid: Tensor, embeddings: Embeddings
    ) -> Tensor:
        """Prediction ``[B, C, F]``; padding is 0 and has no influence on valid frames.

        Args:
            x, known: noisy latents, and clean context (0 elsewhere), ``[B, C, F]``.
            t: ``[B]`` in [0, 1].
            span, valid: ``[B, F]`` bool, frames to inpaint, and frames that are not padding.
        """
        y = self.enter(torch.cat([x, known, span[:, None].to(x.dtype)], dim=1).transpose(1, 2)) + embeddings.frames
        tokens = embeddings.tokens.shape[1]
        y = torch.cat([embeddings.tokens.to(y.dtype), y], dim=1)  # [B, P + F, W]
        condition = F.silu(self.time(t) + embeddings.vector)
        mask = torch.cat([embeddings.token_mask, valid], dim=1)[:, None, None]  # [B, 1, 1, P + F]
        positions = torch.arange(-tokens, x.shape[-1], device=x.device).clamp(min=0)  # tokens are not rotated
        rotation = torch.complex(*rotary(positions, self.head_dim, self.base))
        for block in self.blocks:
            y = block(y, condition, rotation, mask)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        return self.leave(_modulated(y[:, tokens:], shift, scale)).transpose(1, 2) * valid[:, None]


class TimeEmbedding(nn.Module):
    """Embedding of t: ``[B]`` in [0, 1] -> ``[B, W]`` by sinusoids of 1000 t and an MLP of two layers."""

    waves = 128

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * self.waves, width), nn.SiLU(), nn.Linear(width, width))

    @fp32
    def forward(self, t: Tensor) -> Tensor:
        return self.layers(sines(1000 * t, 2 * self.waves))


class Block(nn.Module):
    """Attention and feed-forward layers with adaptive layer norm and gates, ``[B, P + F, W]`` -> the same shape."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.modulation = _zero(nn.Linear(width, 6 * width))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norms = nn.Parameter(torch.ones(2, 1, width // heads))  # of queries and of keys
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        """condition ``[B, W]``; complex rotation ``[P + F, 1, 1, W / H / 2]``; key mask ``[B, 1, 1, P + F]`` bool."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        qkv = self.qkv(_modulated(x, shift1, scale1)).unflatten(-1, (3, self.heads, -1))  # [B, P + F, 3, H, W / H]
        qk = F.rms_norm(qkv[:, :, :2].float(), qkv.shape[-1:]) * self.norms
        q, k = rotate_complex(qk, rotation).to(qkv.dtype).permute(2, 0, 3, 1, 4)  # each [B, H, P + F, W / H]
        y = F.scaled_dot_product_attention(q, k, qkv[:, :, 2].transpose(1, 2), attn_mask=mask)
        x = x + gate1 * self.out(y.transpose(1, 2).flatten(2))
        return x + gate2 * self.down(F.gelu(self.up(_modulated(x, shift2, scale2)), approximate="tanh"))


def sines(positions: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding ``[...]`` -> ``[..., width]``: cosines and sines, wavelengths from 2 pi to 20,000 pi."""
    half = width // 2
    steps = torch.arange(half, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * torch.exp(-math.log(10_000) / half * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
