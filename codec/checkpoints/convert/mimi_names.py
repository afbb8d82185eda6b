"""Names and layouts of a Mimi's tensors in this project, in moshi 0.2.13 and in transformers 5.23.

Tensors correspond one to one, except that this project stacks the codebooks of all levels in one buffer ("flat" names
here have one per level), and that transformers splits queries, keys and values and permutes the rows of the first two:
its RoPE pairs channels of the two halves of a head, the others' pairs neighbours.
"""

import re
from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
EPSILON = 1e-5  # moshi and transformers divide by clamp(usage, EPSILON)
MIN_USAGE = 2.0**-10  # of a code in an exported file: far above EPSILON, and dead in all three libraries' training
BUFFERS = ("usage", "sums", "initialized")  # of a level, under its flat names

_LAYER = [  # of a transformer: this project's names, moshi's, transformers'
    ("norm1.weight", "norm1.weight", "input_layernorm.weight"),
    ("norm1.bias", "norm1.bias", "input_layernorm.bias"),
    ("qkv.weight", "self_attn.in_proj_weight", "self_attn.qkv_proj.weight"),
    ("out.weight", "self_attn.out_proj.weight", "self_attn.o_proj.weight"),
    ("scale1", "layer_scale_1.scale", "self_attn_layer_scale.scale"),
    ("norm2.weight", "norm2.weight", "post_attention_layernorm.weight"),
    ("norm2.bias", "norm2.bias", "post_attention_layernorm.bias"),
    ("up.weight", "linear1.weight", "mlp.fc1.weight"),
    ("down.weight", "linear2.weight", "mlp.fc2.weight"),
    ("scale2", "layer_scale_2.scale", "mlp_layer_scale.scale"),
]
_QUANTIZER = [
    ("project_in.weight", "input_proj.weight", "input_proj.weight"),
    ("project_out.weight", "output_proj.weight", "output_proj.weight"),
    ("{n}.usage", "vq.layers.{n}._codebook.cluster_usage", "layers.{n}.codebook.cluster_usage"),
    ("{n}.sums", "vq.layers.{n}._codebook.embedding_sum", "layers.{n}.codebook.embed_sum"),
    ("{n}.initialized", "vq.layers.{n}._codebook._initialized", "layers.{n}.codebook.initialized"),
]
_PREFIXES = [
    (
        _LAYER,
        "{side}.transformer.layers.{n}.",
        "{side}_transformer.transformer.layers.{n}.",
        "{side}_transformer.layers.{n}.",
    ),
    (_QUANTIZER, "quantizer.semantic.", "quantizer.rvq_first.", "quantizer.semantic_residual_vector_quantizer."),
    (_QUANTIZER, "quantizer.acoustic.", "quantizer.rvq_rest.", "quantizer.acoustic_residual_vector_quantizer."),
]
_ROWS = [
    ("{side}.seanet.layers.{n}.conv.{leaf}", "{side}.model.{n}.conv.conv.{leaf}", "{side}.layers.{n}.conv.{leaf}"),
    (
        "{side}.seanet.layers.{n}.convtr.{leaf}",
        "{side}.model.{n}.convtr.convtr.{leaf}",
        "{side}.layers.{n}.conv.{leaf}",
    ),
    (
        "{side}.seanet.layers.{n}.block.{unit}.conv.{leaf}",
        "{side}.model.{n}.block.{unit}.conv.conv.{leaf}",
        "{side}.layers.{n}.block.{unit}.conv.{leaf}",
    ),
    ("encoder.downsample.conv.weight", "downsample.conv.conv.conv.weight", "downsample.conv.weight"),
    ("decoder.upsample.conv.weight", "upsample.convtr.convtr.convtr.weight", "upsample.conv.weight"),
    *(tuple(map("".join, zip(before, row))) for rows, *before in _PREFIXES for row in rows),
]
LAYOUTS = ("ours", "moshi", "transformers")
NAMES = [dict(zip(LAYOUTS, row, strict=True)) for row in _ROWS]
_FIELDS = {"side": "encoder|decoder", "n": "[0-9]{1,9}", "leaf": "weight|bias", "unit": "[0-9]"}


def renamed(name: str, source: str, target: str) -> str | None:
    """A tensor's name in another layout; None if the source's layout has no such tensor."""
    for row in NAMES:
        if found := _pattern(row[source]).fullmatch(name):
            return row[target].format(**found.groupdict())
    return None


@cache
def _pattern(template: str) -> re.Pattern:
    return re.compile(re.sub(r"\\{(\w+)\\}", lambda field: f"(?P<{field[1]}>{_FIELDS[field[1]]})", re.escape(template)))


def published(name: str) -> str:
    """The name in Kyutai's published files of a tensor that moshi 0.2.13 saves under a newer name."""
    return re.sub(r"in_projs?\.0\.weight$", "in_proj_weight", name).replace("out_projs.0.weight", "out_proj.weight")


def layout_of(names: Iterable[str]) -> str | None:
    """The layout of a file, "moshi" or "transformers", from its tensors' names; None for others."""
    known = {"encoder.model.0.conv.conv.weight": "moshi", "encoder.layers.0.conv.weight": "transformers"}
    return next((layout for name, layout in known.items() if name in names), None)


def flatten(state: dict[str, Tensor]) -> Tensors:
    """A codec's state without weight norm, under flat names: sums and usages per level in place of codebooks."""
    flat = {}
    decoder = [int(found[1]) for name in state if (found := re.match(r"decoder\.seanet\.layers\.(\d+)\.conv\.", name))]
    for name, value in state.items():
        layer = re.fullmatch(r"(decoder\.seanet\.layers\.(\d+)\.conv)(\.\w+)", name)
        if layer and 0 < int(layer[2]) < max(decoder):
            flat[f"{layer[1]}tr{layer[3]}"] = value  # moshi has another name for transposed convolutions
        elif name.endswith(".codebooks"):
            part = name.removesuffix("codebooks")
            usage, sums = exact_sums(value, state[part + "usage"], state[part + "sums"])
            for k in range(len(value)):
                level = (usage[k], sums[k], torch.ones_like(usage[k, :1]))
                flat |= {f"{part}{k}.{buffer}": tensor for buffer, tensor in zip(BUFFERS, level, strict=True)}
        elif not name.endswith((".usage", ".sums", "_extra_state")):
            flat[name] = value
    return flat


def exact_sums(codebooks: Tensor, usage: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Usage ``[K, S]`` and sums ``[K, S, C]`` whose quotient is exactly ``codebooks`` ``[K, S, C]``.

    For codes whose given usage and sums have another quotient (rarely used ones keep their vector), the usage becomes a
    power of two, for which product and quotient are exact.
    """
    same = (sums / usage.clamp(min=EPSILON)[..., None] == codebooks).all(-1)
    floored = usage.clamp(min=MIN_USAGE)
    power = floored / torch.frexp(floored).mantissa
    return torch.where(same, usage, power), torch.where(same[..., None], sums, codebooks * power[..., None])


def unflatten(flat: Tensors, n_q: int) -> dict[str, Tensor | dict[str, int]]:
    """The inverse of :func:`flatten`, with ``n_q`` codebooks in all."""
    state = {name.replace(".convtr.", ".conv."): v for name, v in flat.items() if not name.endswith(BUFFERS)}
    for part, levels in (("quantizer.semantic.", 1), ("quantizer.acoustic.", n_q - 1)):
        usage, sums = (torch.stack([flat[f"{part}{k}.{buffer}"] for k in range(levels)]) for buffer in BUFFERS[:2])
        state |= {part + "usage": usage, part + "sums": sums}
        state[part + "codebooks"] = sums / usage.clamp(min=EPSILON)[..., None]
        state[part + "_extra_state"] = {"steps": 1}  # initialised: k-means would replace the codebooks
    return state


def split_qkv(tensors: Tensors, heads: int) -> Tensors:
    """Split ``qkv_proj`` into transformers' ``q_proj``, ``k_proj``, ``v_proj``, with RoPE's rows in its order."""
    split = {}
    for name, value in tensors.items():
        if "qkv_proj" in name:
            q, k, v = value.chunk(3)
            rows = {"q_proj": _halves(q, heads), "k_proj": _halves(k, heads), "v_proj": v}
            split |= {name.replace("qkv_proj", part): tensor for part, tensor in rows.items()}
        else:
            split[name] = value
    return split


def join_qkv(tensors: Tensors, heads: int) -> Tensors:
    """The inverse of :func:`split_qkv`."""
    joined = {}
    for name, value in tensors.items():
        if "q_proj" in name:
            k, v = (tensors[name.replace("q_proj", part)] for part in ("k_proj", "v_proj"))
            joined[name.replace("q_proj", "qkv_proj")] = torch.cat([_pairs(value, heads), _pairs(k, heads), v])
        elif not re.search(r"\b[kv]_proj\b", name):
            joined[name] = value
    return joined


def _halves(rows: Tensor, heads: int) -> Tensor:
    """Rows ``[heads * (pair, 2), D] -> [heads * (2, pair), D]``."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _pairs(rows: Tensor, heads: int) -> Tensor:
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
