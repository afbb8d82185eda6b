"""Causal layers in the form that suits inference: few frames at a time, weights laid out once, memory used again.

Libraries run convolutions of a few frames, which is what a stream has, in slow fallbacks. Here a convolution is a sum
of matrix products over time-major memory, in which shifting and transposing move nothing. Attention keeps its keys and
values in a ring that is written in place. Results are those of the layers that are replaced; a state belongs to the
form that made it, and a step of a transformer uses it up.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.conv import CausalConv1d, CausalConvTranspose1d, fold_weight_norm
from codec.layers.streaming import State
from codec.layers.transformer import Layer, Transformer


def sliding_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x ``[B, n + m - 1, C]``, weight ``[m, C', C]`` -> ``[B, n, C']``: the sum over k of x from k on times weight k.

    No window is ever copied out of x.
    """
    n = x.shape[1] - len(weight) + 1
    y = F.linear(x[:, :n], weight[0], bias)
    for k in range(1, len(weight)):
        if len(x) == 1:
            y[0].addmm_(x[0, k : k + n], weight[k].t())
        else:
            y.baddbmm_(x[:, k : k + n], weight[k].t().expand(len(x), -1, -1))
    return y


class MatrixConv1d(nn.Module):
    """:class:`CausalConv1d` with one group; its state holds time before channels.

    Where the stride divides the kernel, the samples of one stride stand side by side as one long vector, and the
    convolution is a sum of few products of such vectors.
    """

    def __init__(self, conv: CausalConv1d):
        super().__init__()
        inner = conv.conv
        self.stride, self.padding, self.replicate = conv.stride, conv.padding, conv.pad_mode == "replicate"
        self.kernel, self.dilation = inner.kernel_size[0], inner.dilation[0]
        weight = inner.weight.detach().transpose(1, 2)  # [C', kernel, C]
        small = inner.in_channels * self.stride < 32
        self.windows = small or self.dilation > 1 or self.kernel % self.stride > 0
        blocks = 1 if self.windows else self.kernel // self.stride
        weight = weight.unflatten(1, (blocks, -1)).flatten(2).transpose(0, 1)  # [blocks, C', kernel / blocks * C]
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", None if inner.bias is None else inner.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)[0]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, C, n * stride]`` -> ``[B, C', n]``."""
        if x.shape[-1] % self.stride:
            raise ValueError(f"a length of {x.shape[-1]} is not a multiple of the stride {self.stride}")
        x = x.transpose(1, 2)  # [B, T, C]
        if self.padding:
            if state is None:
                first = x[:, :1] if self.replicate else x.new_zeros(x.shape[0], 1, x.shape[2])
                state = first.expand(-1, self.padding, -1)
            x = torch.cat([state, x], dim=1)
            state = x[:, x.shape[1] - self.padding :].clone()
        if self.windows:
            span = (self.kernel - 1) * self.dilation + 1
            windows = x.unfold(1, span, self.stride)[..., :: self.dilation]  # [B, n, C, kernel]
            x = windows.transpose(2, 3).flatten(2)
        else:
            x = x.contiguous().view(x.shape[0], -1, self.stride * x.shape[2])
        return sliding_product(x, self.weight, self.bias).transpose(1, 2), state


class MatrixConvTranspose1d(nn.Module):
    """:class:`CausalConvTranspose1d` with one group, or one for each channel.

    A block of ``stride`` outputs is a sum of products of the last ``kernel / stride`` inputs; the state is those that
    the next block needs, time before channels.
    """

    def __init__(self, conv: CausalConvTranspose1d):
        super().__init__()
        weight, bias, kernel = conv.conv.weight.detach(), conv.conv.bias, conv.conv.kernel_size[0]
        self.stride, self.channels, self.depthwise = conv.conv.stride[0], conv.conv.out_channels, conv.conv.groups > 1
        self.blocks = -(-kernel // self.stride)
        weight = F.pad(weight, (0, self.blocks * self.stride - kernel))
        blocks = weight.unflatten(-1, (self.blocks, self.stride)).flip(2)  # [C, C' or 1, blocks, stride], oldest first
        if self.depthwise:
            weight = blocks[:, 0].permute(1, 2, 0)  # [blocks, stride, C]
        else:
            weight = blocks.permute(2, 3, 1, 0).flatten(1, 2)  # [blocks, stride * C', C]
            bias = None if bias is None else bias.repeat(self.stride)
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)[0]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, C, n]`` -> ``[B, C', n * stride]``."""
        x, past = x.transpose(1, 2), self.blocks - 1
        n = x.shape[1]
        x = torch.cat([x.new_zeros(x.shape[0], past, x.shape[2]) if state is None else state, x], dim=1)
        if self.depthwise:
            y = sum(x[:, k : k + n, None] * self.weight[k] for k in range(self.blocks))  # [B, n, stride, C]
            y = y if self.bias is None else y + self.bias
        else:
            y = sliding_product(x, self.weight, self.bias).unflatten(2, (self.stride, self.channels))
        return y.flatten(1, 2).transpose(1, 2), x[:, n:].clone()


class RingTransformer(nn.Module):
    """:class:`Transformer` whose keys and values stay in a ring.

    A step of up to ``spare`` frames writes them and reads the ring as it is; longer pieces read the ring and their own
    keys, side by side. Keys know their positions through their rotation, so their order does not matter.
    """

    spare = 16

    def __init__(self, transformer: Transformer):
        super().__init__()
        self.context, self.head_dim = transformer.context, transformer.head_dim
        self.rotation, self.layers = transformer.rotation, transformer.layers
        self.size = self.context - 1 + self.spare
        for layer in self.layers:  # LayerScale goes into the products before it
            layer.out.weight.data *= layer.scale1.data[:, None]
            layer.down.weight.data *= layer.scale2.data[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)[0]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, dim, n]``; the state is the number of frames so far, the position ``[size]`` that each place of the
        ring holds, and the rings of all layers ``[layers, 2, B, heads, size, head_dim]``."""
        batch, dim, n = x.shape
        if state is None:
            rings = x.new_zeros(len(self.layers), 2, batch, dim // self.head_dim, self.size, self.head_dim)
            state = (0, torch.full((self.size,), -self.context, device=x.device), rings)
        seen, held, rings = state
        queries = torch.arange(seen, seen + n, device=x.device)
        last = queries[-self.size :]
        if n > self.spare:
            keys = torch.cat([held, queries])
            held[last % self.size] = last
        else:
            held[last % self.size] = last
            keys = held
        behind = queries[:, None] - keys
        mask = (behind >= 0) & (behind < self.context) & (keys >= 0)
        cos, sin = self.rotation(queries)
        rotation = torch.complex(cos, sin)  # neighbouring channels are the two parts of a complex number
        x = x.transpose(1, 2).contiguous()
        for layer, ring in zip(self.layers, rings.unbind(0), strict=True):
            x = x + self.attend(layer, layer.norm1(x), rotation, mask, ring, last % self.size)
            x = x + layer.down(F.gelu(layer.up(layer.norm2(x))))
        return x.transpose(1, 2), (seen + n, held, rings)

    def attend(self, layer: Layer, x: Tensor, rotation: Tensor, mask: Tensor, ring: Tensor, places: Tensor) -> Tensor:
        """x ``[B, n, C]``, mask ``[n, keys]``, ring ``[2, B, H, size, C / H]``, places ``[n]`` of the ring to write."""
        qkv = layer.qkv(x).unflatten(-1, (3, layer.heads, -1))  # [B, n, 3, H, C / H]
        pairs = torch.view_as_complex(qkv[:, :, :2].float().unflatten(-1, (-1, 2)))
        qk = torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)
        q, k, v = (one.transpose(1, 2) for one in (qk[:, :, 0], qk[:, :, 1], qkv[:, :, 2]))  # [B, H, n, C / H]
        keys, values = ring
        if mask.shape[1] > self.size:
            keys, values = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        ring[0].index_copy_(2, places, k[:, :, -len(places) :])
        ring[1].index_copy_(2, places, v[:, :, -len(places) :])
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return layer.out(y.transpose(1, 2).flatten(2))


def for_inference(module: nn.Module) -> nn.Module:
    """Replace, in place, the layers of ``module`` by their forms for inference -> the module.

    It can then be neither trained nor saved. Weight norm is folded, and what has a ``freeze`` method is frozen.
    """
    fold_weight_norm(module.eval().requires_grad_(False))
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, CausalConv1d) and child.conv.groups == 1:
                setattr(part, name, MatrixConv1d(child))
            elif isinstance(child, CausalConvTranspose1d) and _one_group_or_one_each(child):
                setattr(part, name, MatrixConvTranspose1d(child))
            elif isinstance(child, Transformer):
                setattr(part, name, RingTransformer(child))
        if hasattr(part, "freeze"):
            part.freeze()
    return module


def _one_group_or_one_each(conv: CausalConvTranspose1d) -> bool:
    inner = conv.conv
    return inner.groups == 1 or inner.groups == inner.in_channels == inner.out_channels


class InPrecision(nn.Module):
    """A causal part with weights of another precision, between tensors in fp32."""

    def __init__(self, part: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.dim, self.hop_length, self.dtype = part.dim, part.hop_length, dtype
        inner = [module for module in part.modules() if hasattr(module, "full_precision")]
        kept = [layer for module in inner for layer in module.full_precision()]
        originals = [copy.deepcopy(layer.state_dict()) for layer in kept]
        self.part = part.to(dtype)
        for layer, original in zip(kept, originals, strict=True):
            layer.float().load_state_dict(original)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x)[0]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        y, state = self.part.step(x.to(self.dtype), state)
        return y.float(), state
