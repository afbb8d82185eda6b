"""Where each tensor of a Mimi lies in the files of others: moshi's and transformers', beside our own names.

The three name the same tensors, one for one, with two exceptions. Our quantizer keeps the codebooks of all levels in
one buffer; here each level stands alone ("flat"). transformers keeps queries, keys and values apart, and rotates the
two halves of a head against each other where moshi and we rotate neighbouring channels, so that the rows of its queries
and keys stand in another order.

Read in moshi 0.2.13 (``models/loaders.py``, ``modules/transformer.py``) and transformers 5.23 (``models/mimi``,
``conversion_mapping.py``): both write the names below, whatever their modules are called by now.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from codec.checkpoints.safe_instantiate import CheckpointError

Tensors = dict[str, Tensor]
EPSILON = 1e-5  # both others divide by clamp(usage, EPSILON)
# Usage that is written for a code without any: far from EPSILON, and dead for everyone's training.
FLOOR = 2.0**-10
DEEPEST = 1000  # of anything that is counted in names: a file from outside may say any number


@dataclass(frozen=True)
class Layout:
    """The names of one project; ``{side}`` is "encoder" or "decoder", ``{n}`` a number; the lists are in one order."""

    seanet: str
    conv: str
    transposed: str
    downsample: str
    upsample: str
    transformer: str
    leaves: tuple[str, ...]
    quantizers: tuple[str, str]
    projections: tuple[str, str]
    codebook: str
    buffers: tuple[str, str, str]


OURS = Layout(
    seanet="{side}.seanet.layers.{n}.",
    conv="conv.",
    transposed="conv.",
    downsample="encoder.downsample.conv.weight",
    upsample="decoder.upsample.conv.weight",
    transformer="{side}.transformer.layers.{n}.",
    leaves=(
        *("norm1.weight", "norm1.bias", "qkv.weight", "out.weight", "scale1"),
        *("norm2.weight", "norm2.bias", "up.weight", "down.weight", "scale2"),
    ),
    quantizers=("quantizer.semantic.", "quantizer.acoustic."),
    projections=("project_in.weight", "project_out.weight"),
    codebook="{n}.",
    buffers=("usage", "sums", "initialized"),
)
MOSHI = Layout(  # as published; see as_published
    seanet="{side}.model.{n}.",
    conv="conv.conv.",
    transposed="convtr.convtr.",
    downsample="downsample.conv.conv.conv.weight",
    upsample="upsample.convtr.convtr.convtr.weight",
    transformer="{side}_transformer.transformer.layers.{n}.",
    leaves=(
        *("norm1.weight", "norm1.bias", "self_attn.in_proj_weight", "self_attn.out_proj.weight", "layer_scale_1.scale"),
        *("norm2.weight", "norm2.bias", "linear1.weight", "linear2.weight", "layer_scale_2.scale"),
    ),
    quantizers=("quantizer.rvq_first.", "quantizer.rvq_rest."),
    projections=("input_proj.weight", "output_proj.weight"),
    codebook="vq.layers.{n}._codebook.",
    buffers=("cluster_usage", "embedding_sum", "_initialized"),
)
TRANSFORMERS = Layout(
    seanet="{side}.layers.{n}.",
    conv="conv.",
    transposed="conv.",
    downsample="downsample.conv.weight",
    upsample="upsample.conv.weight",
    transformer="{side}_transformer.layers.{n}.",
    leaves=(
        *("input_layernorm.weight", "input_layernorm.bias", "self_attn.qkv_proj.weight", "self_attn.o_proj.weight"),
        *("self_attn_layer_scale.scale", "post_attention_layernorm.weight", "post_attention_layernorm.bias"),
        *("mlp.fc1.weight", "mlp.fc2.weight", "mlp_layer_scale.scale"),
    ),
    quantizers=("quantizer.semantic_residual_vector_quantizer.", "quantizer.acoustic_residual_vector_quantizer."),
    projections=("input_proj.weight", "output_proj.weight"),
    codebook="layers.{n}.codebook.",
    buffers=("cluster_usage", "embed_sum", "initialized"),
)


def recognise(names: Iterable[str]) -> Layout | None:
    """The layout of a file from its tensors' names, None if it is neither."""
    names = set(names)
    for layout in (MOSHI, TRANSFORMERS):
        if layout.seanet.format(side="encoder", n=0) + layout.conv + "weight" in names:
            return layout
    return None


def as_published(name: str) -> str:
    """A name of moshi 0.2.13 as in Kyutai's files, whose names it reads, too, and its MLX and Rust versions alone."""
    return re.sub(r"in_projs?\.0\.weight$", "in_proj_weight", name).replace("out_projs.0.weight", "out_proj.weight")


@dataclass(frozen=True)
class Depth:
    """How many there are: stages of a SEANet, layers of a transformer, codebooks; and whether there are convolutions
    between the two frame rates, and projections around the codebooks."""

    stages: int
    layers: int
    n_q: int
    resampled: bool
    projected: bool

    def __post_init__(self) -> None:
        if max(self.stages, self.layers, self.n_q) > DEEPEST:
            counts = f"{self.stages} stages, {self.layers} layers and {self.n_q} codebooks"
            raise CheckpointError(f"a file describes a Mimi of {counts}, and {DEEPEST} of each are the most")

    @classmethod
    def of(cls, names: Iterable[str], layout: Layout) -> "Depth":
        """Counted in the names of a file (of transformers: with queries, keys and values in one)."""
        names = set(names)
        return cls(
            stages=_last(names, layout.seanet.replace("{side}", "encoder")) // 3,
            layers=_last(names, layout.transformer.replace("{side}", "encoder")) + 1,
            n_q=_last(names, layout.quantizers[1] + layout.codebook) + 2,
            resampled=layout.downsample in names,
            projected=layout.quantizers[0] + layout.projections[0] in names,
        )


def _last(names: Iterable[str], template: str) -> int:
    """The highest ``{n}`` among the names that begin like the template; -1 if there are none."""
    pattern = re.compile(re.escape(template).replace(r"\{n\}", r"(\d+)"))
    return max((int(found[1]) for found in map(pattern.match, names) if found), default=-1)


def names(layout: Layout, depth: Depth) -> list[str]:
    """All tensors of a Mimi, in one order for all layouts."""
    found = []
    for side in ("encoder", "decoder"):
        for n, kind in _convolutions(side, depth.stages):
            place = layout.seanet.format(side=side, n=n)
            conv = layout.transposed if kind == "transposed" else layout.conv
            inner = ("block.1.", "block.3.") if kind == "unit" else ("",)
            found += [place + i + conv + leaf for i in inner for leaf in ("weight", "bias")]
        for n in range(depth.layers):
            found += [layout.transformer.format(side=side, n=n) + leaf for leaf in layout.leaves]
    if depth.resampled:
        found += [layout.downsample, layout.upsample]
    for quantizer, levels in zip(layout.quantizers, (1, depth.n_q - 1), strict=True):
        if depth.projected:
            found += [quantizer + projection for projection in layout.projections]
        found += [quantizer + layout.codebook.format(n=n) + leaf for n in range(levels) for leaf in layout.buffers]
    return found


def _convolutions(side: str, stages: int) -> list[tuple[int, str]]:
    """Positions of what has weights among the layers of a SEANet: ELUs stand between."""
    inner = ("unit", "", "conv") if side == "encoder" else ("", "transposed", "unit")
    kinds = ["conv", *(inner * stages), "", "conv"]
    return [(n, kind) for n, kind in enumerate(kinds) if kind]


def flatten(state: dict[str, Tensor]) -> Tensors:
    """A codec's plain state -> one entry for each tensor of the others, under our names.

    They keep no codebooks, only sums and usages. Where sums / usage is not exactly our codebook (a code that was hardly
    used keeps its vector), the usage becomes a power of two, with which product and quotient are exact.
    """
    flat = {}
    for name, value in state.items():
        if name.endswith(".codebooks"):
            part = name.removesuffix("codebooks")
            usage, sums = exact_sums(value, state[part + "usage"], state[part + "sums"])
            for k in range(len(value)):
                level = part + OURS.codebook.format(n=k)
                for leaf, tensor in zip(OURS.buffers, (usage[k], sums[k], torch.ones_like(usage[k, :1])), strict=True):
                    flat[level + leaf] = tensor
        elif not name.endswith((".usage", ".sums", "_extra_state")):
            flat[name] = value
    return flat


def exact_sums(codebooks: Tensor, usage: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Usage ``[K, S]`` and sums ``[K, S, C]`` whose quotient is ``codebooks`` to the last bit: these if it is."""
    same = (sums / usage.clamp(min=EPSILON)[..., None] == codebooks).all(-1)
    floored = usage.clamp(min=FLOOR)
    power = floored / torch.frexp(floored).mantissa
    return torch.where(same, usage, power), torch.where(same[..., None], sums, codebooks * power[..., None])


def unflatten(flat: Tensors, levels: tuple[int, int]) -> dict[str, Tensor | dict[str, int]]:
    """The inverse of :func:`flatten`, for so many levels of the semantic and of the acoustic quantizer."""
    state = {name: value for name, value in flat.items() if name.rpartition(".")[2] not in OURS.buffers}
    for part, count in zip(OURS.quantizers, levels, strict=True):
        places = [part + OURS.codebook.format(n=k) for k in range(count)]
        usage, sums = (torch.stack([flat[place + leaf] for place in places]) for leaf in OURS.buffers[:2])
        state |= {part + "usage": usage, part + "sums": sums}
        state[part + "codebooks"] = sums / usage.clamp(min=EPSILON)[..., None]
        state[part + "_extra_state"] = {"steps": 1}  # initialised: k-means would replace the codebooks
    return state


def split_qkv(tensors: Tensors, heads: int) -> Tensors:
    """``qkv_proj`` -> transformers' ``q_proj``, ``k_proj``, ``v_proj``, with halves instead of pairs."""
    split = {}
    for name, value in tensors.items():
        if "qkv_proj" in name:
            q, k, v = value.chunk(3)
            for letter, rows in (("q", _halves(q, heads)), ("k", _halves(k, heads)), ("v", v)):
                split[name.replace("qkv_proj", f"{letter}_proj")] = rows
        else:
            split[name] = value
    return split


def join_qkv(tensors: Tensors, heads: int) -> Tensors:
    """The inverse of :func:`split_qkv`."""
    joined = {}
    for name, value in tensors.items():
        if "q_proj" in name:
            k, v = (tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "kv")
            joined[name.replace("q_proj", "qkv_proj")] = torch.cat([_pairs(value, heads), _pairs(k, heads), v])
        elif not re.search(r"\b[kv]_proj\b", name):
            joined[name] = value
    return joined


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Rows ``[heads * (pair, 2), D]`` -> ``[heads * (2, pair), D]``."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _pairs(rows: Tensor, heads: int) -> Tensor:
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
