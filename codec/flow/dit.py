"""A transformer over latent frames that is told the time: DiT (arXiv 2212.09748) as used for speech (F5-TTS, arXiv
2410.06885, section 3.2).

Adaptive layer norm from time with zero initialisation: every block begins as the identity, and the whole network as 0.
Rotary positions (arXiv 2104.09864), norms of queries and keys (arXiv 2302.05442, section 2; without biases), attention
over all frames. We differ from F5-TTS in that there is no convolution for positions, and that tokens without a position
can be attended to beside the frames.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.flow.conditioning import Given
from codec.layers.precision import fp32
from codec.layers.transformer import rotary

Modulation = tuple[Tensor, Tensor, Tensor]  # shift, scale, gate: [B, 1, W] each


class DiT(nn.Module):
    """Noisy latents, what is known of them and what is given beside them -> an estimate, all ``[B, C, F]``.

    Args:
        channels: C of the latents.
        width: W of the network.
        layers, heads, hidden: depth, attention heads, width of the feed-forward part.
        base: of the rotary frequencies.

    Raises:
        ValueError: if the heads do not divide the width into an even number of channels each.
    """

    def __init__(self, channels: int, width: int, layers: int, heads: int, hidden: int, base: float = 10_000.0):
        super().__init__()
        if width % (2 * heads):
            raise ValueError(f"{heads} heads do not divide a width of {width} into pairs: choose other heads")
        self.channels, self.width, self.base, self.head_dim = channels, width, base, width // heads
        self.enter = nn.Linear(2 * channels + 1, width)
        self.time = Time(width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.modulation = _zero(nn.Linear(width, 2 * width))
        self.leave = _zero(nn.Linear(width, channels))

    def forward(self, x: Tensor, known: Tensor, span: Tensor, t: Tensor, inside: Tensor, given: Given) -> Tensor:
        """What lies outside of an example changes nothing inside.

        Args:
            x: ``[B, C, F]``, noisy.
            known: ``[B, C, F]``, clean where there is something known and 0 elsewhere.
            span: ``[B, F]`` bool, true where the network is to fill in.
            t: ``[B]`` in [0, 1].
            inside: ``[B, F]`` bool, false where an example has ended.
            given: what else the network is told.
        """
        entered = torch.cat([x, known, span[:, None].to(x.dtype)], dim=1).transpose(1, 2)
        y = self.enter(entered) + given.frames
        tokens = given.tokens.shape[1]
        y = torch.cat([given.tokens.to(y.dtype), y], dim=1)  # [B, P + F, W]
        told = F.silu(self.time(t) + given.vector)
        attended = torch.cat([given.attended, inside], dim=1)[:, None, None]  # [B, 1, 1, P + F]
        at = torch.arange(-tokens, x.shape[-1], device=x.device).clamp(min=0)
        rotation = torch.complex(*rotary(at, self.head_dim, self.base))  # tokens are not rotated
        for block in self.blocks:
            y = block(y, told, rotation, attended)
        shift, scale = self.modulation(told)[:, None].chunk(2, dim=-1)
        y = _normed(y[:, tokens:], shift, scale)
        return self.leave(y).transpose(1, 2) * inside[:, None]


class Time(nn.Module):
    """``[B]`` in [0, 1] -> ``[B, W]``: sines and cosines of 1 to 10,000 periods over 1,000 steps, and two layers."""

    def __init__(self, width: int, waves: int = 128):
        super().__init__()
        self.waves = waves
        self.layers = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width))

    @fp32
    def forward(self, t: Tensor) -> Tensor:
        return self.layers(sines(1000 * t, 2 * self.waves))


class Block(nn.Module):
    """``[B, P + F, W]`` -> the same: attention and feed-forward, each scaled, shifted and gated by what is told."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.modulation = _zero(nn.Linear(width, 6 * width))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norms = nn.Parameter(torch.ones(2, 1, width // heads))  # of queries and of keys
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, told: Tensor, rotation: Tensor, attended: Tensor) -> Tensor:
        """told ``[B, W]``; rotation ``[P + F, 1, 1, W / H / 2]``, complex; attended ``[B, 1, 1, P + F]`` bool, what can
        be attended to."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(told)[:, None].chunk(6, dim=-1)
        qkv = self.qkv(_normed(x, shift1, scale1)).unflatten(-1, (3, self.heads, -1))  # [B, P + F, 3, H, W / H]
        qk = F.rms_norm(qkv[:, :, :2].float(), qkv.shape[-1:]) * self.norms
        q, k = turned(qk, rotation).to(qkv.dtype).permute(2, 0, 3, 1, 4)  # each [B, H, P + F, W / H]
        y = F.scaled_dot_product_attention(q, k, qkv[:, :, 2].transpose(1, 2), attn_mask=attended)
        x = x + gate1 * self.out(y.transpose(1, 2).flatten(2))
        return x + gate2 * self.down(F.gelu(self.up(_normed(x, shift2, scale2)), approximate="tanh"))


def sines(positions: Tensor, width: int) -> Tensor:
    """``[...]`` -> ``[..., width]``: cosines and sines of wavelengths from 2 pi to 20,000 pi."""
    half = width // 2
    steps = torch.arange(half, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * torch.exp(-math.log(10_000) / half * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def turned(x: Tensor, rotation: Tensor) -> Tensor:
    """x ``[..., C]`` in fp32: each pair of neighbouring channels is a complex number, times one of length 1 in
    ``[..., C / 2]``. As :func:`codec.layers.transformer.rotate`, which ONNX can say, in fewer passes over memory."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2)


def _normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
