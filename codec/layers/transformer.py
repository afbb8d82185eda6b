"""Causal transformer over the frames of a latent sequence (Mimi, arXiv 2410.00037, section 3.3.1).

Pre-norm layers with LayerScale (arXiv 2103.17239), rotary positions (arXiv 2104.09864) of interleaved channel pairs, a
finite attention window, biases in the norms only, no final norm.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.streaming import State


class Transformer(nn.Module):
    """Causal transformer ``[B, dim, F] -> [B, dim, F]``; frame i attends to frames i - context + 1 to i.

    Mimi's context of 250 frames is 10 s at 25 Hz. ``dim`` is a multiple of 2 * heads, ``hidden`` the width of the
    feed-forward part, ``scale`` the initial value of LayerScale, ``base`` that of the rotary frequencies.
    """

    def __init__(
        self,
        dim: int,
        layers: int = 8,
        heads: int = 8,
        hidden: int = 2048,
        context: int = 250,
        scale: float = 0.01,
        base: float = 10_000.0,
    ):
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(
                f"{heads} heads do not divide {dim} channels into pairs: choose heads from dim / 2's divisors"
            )
        self.context, self.base, self.head_dim = context, base, dim // heads
        self.layers = nn.ModuleList(Layer(dim, heads, hidden, scale) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[-1], device=x.device)
        behind = positions[:, None] - positions  # [F, F], frames from a key to the query
        mask = None if len(positions) <= self.context else (behind >= 0) & (behind < self.context)
        rotation = self.rotation(positions)
        x = x.transpose(1, 2)  # [B, F, C]
        for layer in self.layers:
            x, _ = layer(x, rotation, mask)
        return x.transpose(1, 2)

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, dim, n]``; the state is the number of frames so far (int64 scalar) and, for each layer, the rotated
        keys and the values of the last ``context - 1`` frames ``[B, heads, context - 1, head_dim]``."""
        past = self.context - 1
        if state is None:
            empty = x.new_zeros(x.shape[0], x.shape[1] // self.head_dim, past, self.head_dim)
            state = (torch.zeros((), dtype=torch.int64, device=x.device), *([(empty, empty)] * len(self.layers)))
        seen, caches = state[0], state[1:]
        queries = seen + torch.arange(x.shape[-1], device=x.device)
        keys = seen + torch.arange(-past, x.shape[-1], device=x.device)
        behind = queries[:, None] - keys  # [n, past + n]
        mask = (behind >= 0) & (behind < self.context) & (keys >= 0)
        rotation = self.rotation(queries)
        x = x.transpose(1, 2)
        new = []
        for layer, cache in zip(self.layers, caches, strict=True):
            x, (k, v) = layer(x, rotation, mask, cache)
            new.append((k[:, :, k.shape[2] - past :], v[:, :, v.shape[2] - past :]))
        return x.transpose(1, 2), (seen + x.shape[1], *new)

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return rotary(positions, self.head_dim, self.base)


class Layer(nn.Module):
    """Transformer layer ``[B, F, C] -> [B, F, C]``, and its keys and values: those of the cache, then of this call."""

    def __init__(self, dim: int, heads: int, hidden: int, scale: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, hidden, bias=False), nn.Linear(hidden, dim, bias=False)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((dim,), scale)) for _ in range(2))

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | None,
        cache: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """mask ``[F, keys]`` bool, true where a query attends to a key; None is causal without a window."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # [B, F, 3, H, C / H]
        q, k = rotate(qkv[:, :, :2], rotation).permute(2, 0, 3, 1, 4)  # each [B, H, F, C / H]
        v = qkv[:, :, 2].transpose(1, 2)
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.scale1 * self.out(y.transpose(1, 2).flatten(2))
        return x + self.scale2 * self.down(F.gelu(self.up(self.norm2(x)))), (k, v)


def rotary(positions: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """positions ``[F]`` -> cosines and sines ``[F, 1, 1, head_dim / 2]`` in fp32."""
    pairs = torch.arange(head_dim // 2, device=positions.device, dtype=torch.float32)
    angles = (positions[:, None].float() * base ** (-2 / head_dim * pairs))[:, None, None]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """x ``[B, F, 2, H, C / H]``: rotate each pair of neighbouring channels by its angle, in fp32."""
    cos, sin = rotation
    real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return rotated.flatten(-2).to(x.dtype)


def rotate_complex(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary embedding of fp32 x ``[..., C]``: pairs of neighbouring channels times complex ``[..., C / 2]``. Equals
    ``rotate``, which can be exported to ONNX, in fewer passes over memory."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2)
