"""Causal layers in a form for inference: convolutions as matrix products, attention over a ring of keys and values.

Libraries have slow fallbacks for convolutions of few frames, as in a stream. Here these are sums of matrix products
over time-major memory. Results equal those of the replaced layers; states have another form.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers.conv import CausalConv1d, CausalConvTranspose1d, fold_weight_norm
from codec.layers.streaming import State, StreamingLayer
from codec.layers.transformer import Layer, Transformer, rotate_complex


def sliding_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x ``[B, n + m - 1, C]``, weight ``[m, C', C]`` -> ``[B, n, C']``: the sum over k of ``x[:, k : k + n]`` times
    weight k, without copying windows of x."""
    n = x.shape[1] - len(weight) + 1
    y = F.linear(x[:, :n], weight[0], bias)
    for k in range(1, len(weight)):
        if len(x) == 1:
            y[0].addmm_(x[0, k : k + n], weight[k].t())
        else:
            y.baddbmm_(x[:, k : k + n], weight[k].t().expand(len(x), -1, -1))
    return y


def grouped_product(windows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """windows ``[B, n, C, m]``, weight ``[G, C / G * m, C']`` -> ``[B, n, G, C']``: one product for each group."""
    x = windows.reshape(-1, *weight.shape[:2]).transpose(0, 1)  # [G, B * n, C / G * m]
    y = torch.bmm(x, weight) if bias is None else torch.baddbmm(bias, x, weight)
    return y.transpose(0, 1).unflatten(0, windows.shape[:2])


class MatrixConv1d(StreamingLayer):
    """:class:`CausalConv1d` as a sum of products of vectors of ``stride`` samples if the stride divides the kernel,
    groups as a product for each; its state is time-major."""

    def __init__(self, conv: CausalConv1d):
        super().__init__()
        inner = conv.conv
        self.stride, self.padding, self.replicate = conv.stride, conv.padding, conv.pad_mode == "replicate"
        self.kernel, self.dilation = inner.kernel_size[0], inner.dilation[0]
        self.depthwise = inner.groups > 1 and inner.groups == inner.in_channels == inner.out_channels
        self.grouped = inner.groups > 1 and not self.depthwise
        weight, bias = inner.weight.detach(), None if inner.bias is None else inner.bias.detach()  # [C', C / G, kernel]
        small = inner.in_channels * self.stride < 32
        self.windows = small or self.dilation > 1 or self.kernel % self.stride > 0 or self.grouped
        if self.depthwise:
            weight = weight[:, 0].t()
        elif self.grouped:
            weight = weight.unflatten(0, (inner.groups, -1)).flatten(2).transpose(1, 2)  # [G, C / G * kernel, C' / G]
            bias = None if bias is None else bias.view(inner.groups, 1, -1)
        else:
            weight = self._blocks(weight.transpose(1, 2))
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", bias)

    def _blocks(self, weight: Tensor) -> Tensor:
        """``[C', kernel, C]`` -> ``[blocks, C', kernel / blocks * C]``."""
        blocks = 1 if self.windows else self.kernel // self.stride
        return weight.unflatten(1, (blocks, -1)).flatten(2).transpose(0, 1)

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
        if self.depthwise:
            last = x.shape[1] - (self.kernel - 1) * self.dilation  # of the first tap
            y = x.new_zeros(()) if self.bias is None else self.bias
            for k, weight in enumerate(self.weight.unbind(0)):
                tap = x[:, k * self.dilation : k * self.dilation + last : self.stride]
                y = y.addcmul_(tap, weight) if k else torch.addcmul(y, tap, weight)
            return y.transpose(1, 2), state
        if self.windows:
            span = (self.kernel - 1) * self.dilation + 1
            windows = x.unfold(1, span, self.stride)[..., :: self.dilation]  # [B, n, C, kernel]
            if self.grouped:
                return grouped_product(windows, self.weight, self.bias).flatten(2).transpose(1, 2), state
            x = windows.transpose(2, 3).flatten(2)
        else:
            x = x.contiguous().view(x.shape[0], -1, self.stride * x.shape[2])
        return sliding_product(x, self.weight, self.bias).transpose(1, 2), state


class MatrixConvTranspose1d(StreamingLayer):
    """:class:`CausalConvTranspose1d` as a sum of products of the last ceil(kernel / stride) inputs; the state is all of
    these but the oldest, time-major."""

    def __init__(self, conv: CausalConvTranspose1d):
        super().__init__()
        weight, bias, kernel = conv.conv.weight.detach(), conv.conv.bias, conv.conv.kernel_size[0]
        self.stride, self.channels, groups = conv.conv.stride[0], conv.conv.out_channels, conv.conv.groups
        self.depthwise = groups > 1 and groups == conv.conv.in_channels == self.channels
        self.grouped = groups > 1 and not self.depthwise
        self.blocks = -(-kernel // self.stride)
        weight = F.pad(weight, (0, self.blocks * self.stride - kernel))
        blocks = weight.unflatten(-1, (self.blocks, self.stride)).flip(2)  # [C, C' or 1, blocks, stride], oldest first
        if self.depthwise:
            weight = blocks[:, 0].permute(1, 2, 0)  # [blocks, stride, C]
        elif self.grouped:
            weight = blocks.unflatten(0, (groups, -1)).permute(0, 1, 3, 4, 2).flatten(3).flatten(1, 2)
            bias = None if bias is None else bias.view(groups, 1, -1).repeat(1, 1, self.stride)
        else:
            weight = blocks.permute(2, 3, 1, 0).flatten(1, 2)  # [blocks, stride * C', C]
            bias = None if bias is None else bias.repeat(self.stride)
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, C, n]`` -> ``[B, C', n * stride]``."""
        x, past = x.transpose(1, 2), self.blocks - 1
        n = x.shape[1]
        x = torch.cat([x.new_zeros(x.shape[0], past, x.shape[2]) if state is None else state, x], dim=1)
        if self.depthwise:
            y = sum(x[:, k : k + n, None] * self.weight[k] for k in range(self.blocks))  # [B, n, stride, C]
            y = y if self.bias is None else y + self.bias
        elif self.grouped:  # weight [G, C / G * blocks, stride * C' / G]
            y = grouped_product(x.unfold(1, self.blocks, 1), self.weight, self.bias)
            y = y.unflatten(3, (self.stride, -1)).transpose(2, 3).flatten(3)  # [B, n, stride, C']
        else:
            y = sliding_product(x, self.weight, self.bias).unflatten(2, (self.stride, self.channels))
        return y.flatten(1, 2).transpose(1, 2), x[:, n:].clone()


class RingTransformer(StreamingLayer):
    """:class:`Transformer` with keys and values in a ring buffer; a step overwrites its state.

    Keys have rotary positions, so their order in the ring does not matter. Steps longer than ``spare`` frames attend to
    the ring and their own keys, concatenated.
    """

    spare = 16

    def __init__(self, transformer: Transformer):
        super().__init__()
        self.context, self.head_dim = transformer.context, transformer.head_dim
        self.rotation, self.layers = transformer.rotation, transformer.layers
        self.size = self.context - 1 + self.spare
        for layer in self.layers:  # fold LayerScale into the products before it
            layer.out.weight.data *= layer.scale1.data[:, None]
            layer.down.weight.data *= layer.scale2.data[:, None]

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """x ``[B, dim, n]``; the state is the number of frames so far, the position ``[size]`` in each slot of the
        ring, and the rings of all layers ``[layers, 2, B, heads, size, head_dim]``."""
        batch, dim, n = x.shape
        if state is None:
            rings = x.new_zeros(len(self.layers), 2, batch, dim // self.head_dim, self.size, self.head_dim)
            state = (0, torch.full((self.size,), -self.context, device=x.device), rings)
        seen, slots, rings = state
        queries = torch.arange(seen, seen + n, device=x.device)
        last = queries[-self.size :]
        if n > self.spare:
            keys = torch.cat([slots, queries])
            slots[last % self.size] = last
        else:
            slots[last % self.size] = last
            keys = slots
        behind = queries[:, None] - keys
        mask = (behind >= 0) & (behind < self.context) & (keys >= 0)
        cos, sin = self.rotation(queries)
        rotation = torch.complex(cos, sin)  # neighbouring channels are the two parts of a complex number
        x = x.transpose(1, 2).contiguous()
        for layer, ring in zip(self.layers, rings.unbind(0), strict=True):
            x = x + self._attend(layer, layer.norm1(x), rotation, mask, ring, last % self.size)
            x = x + layer.down(F.gelu(layer.up(layer.norm2(x))))
        return x.transpose(1, 2), (seen + n, slots, rings)

    def _attend(self, layer: Layer, x: Tensor, rotation: Tensor, mask: Tensor, ring: Tensor, slots: Tensor) -> Tensor:
        """Attention of x ``[B, n, C]``; mask ``[n, keys]``, ring ``[2, B, H, size, C / H]``, slots to write ``[n]``."""
        qkv = layer.qkv(x).unflatten(-1, (3, layer.heads, -1))  # [B, n, 3, H, C / H]
        qk = rotate_complex(qkv[:, :, :2].float(), rotation).to(x.dtype)
        q, k, v = (one.transpose(1, 2) for one in (qk[:, :, 0], qk[:, :, 1], qkv[:, :, 2]))  # [B, H, n, C / H]
        keys, values = ring
        if mask.shape[1] > self.size:
            keys, values = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        ring[0].index_copy_(2, slots, k[:, :, -len(slots) :])
        ring[1].index_copy_(2, slots, v[:, :, -len(slots) :])
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        return layer.out(y.transpose(1, 2).flatten(2))


def for_inference(module: nn.Module) -> nn.Module:
    """Replace the layers of ``module`` by their forms for inference, in place -> the module, no longer trainable.

    Weight norm is folded, and ``precompute`` is called where a submodule has it. The module cannot be saved.
    """
    fold_weight_norm(module.eval().requires_grad_(False))
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, CausalConv1d):
                setattr(part, name, MatrixConv1d(child))
            elif isinstance(child, CausalConvTranspose1d):
                setattr(part, name, MatrixConvTranspose1d(child))
            elif isinstance(child, Transformer):
                setattr(part, name, RingTransformer(child))
        if hasattr(part, "precompute"):
            part.precompute()
    return module


class ReducedPrecision(StreamingLayer):
    """A causal part with fp32 inputs and outputs and weights in ``dtype`` (``full_precision()`` layers: fp32)."""

    def __init__(self, part: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.dim, self.hop_length, self.lookahead, self.dtype = part.dim, part.hop_length, part.lookahead, dtype
        inner = [module for module in part.modules() if hasattr(module, "full_precision")]
        fp32_layers = [layer for module in inner for layer in module.full_precision()]
        originals = [copy.deepcopy(layer.state_dict()) for layer in fp32_layers]
        self.part = part.to(dtype)
        for layer, original in zip(fp32_layers, originals, strict=True):
            layer.float().load_state_dict(original)

    def step(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        y, state = self.part.step(x.to(self.dtype), state)
        return y.float(), state
