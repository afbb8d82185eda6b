"""Mimi (arXiv 2410.00037) from and to Kyutai's files: moshi's safetensors, and transformers' MimiModel.

Latents, codes and waveforms of the two sides agree to fp32 rounding for whole frames (tests/interop for transformers,
bench/infer.py for moshi, which is no requirement of ours). For other lengths moshi and we pad the waveform once, with
zeros; transformers pads before each strided convolution, and its last frame then differs.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from codec.checkpoints.convert.locate import locate_mimi, read_config, read_tensors
from codec.checkpoints.convert.mimi_config import MimiSizes, from_moshi, from_shapes, from_transformers
from codec.checkpoints.convert.mimi_names import (
    MOSHI,
    OURS,
    TRANSFORMERS,
    Depth,
    Layout,
    Tensors,
    as_published,
    flatten,
    join_qkv,
    names,
    recognise,
    split_qkv,
    unflatten,
)
from codec.checkpoints.convert.weight_norm import load_plain, plain_state
from codec.checkpoints.load import CheckpointError, compare_tensors
from codec.checkpoints.safe_instantiate import build
from codec.decoders.mimi import MimiDecoder
from codec.decoders.seanet import SEANetDecoder
from codec.encoders.mimi import MimiEncoder
from codec.encoders.seanet import SEANetEncoder
from codec.model import Codec
from codec.quantizers.split_rvq import SplitRVQ

LAYOUTS = {"transformers": TRANSFORMERS, "moshi": MOSHI}
FILES = {  # that an export consists of, the weights first
    "transformers": ("model.safetensors", "config.json", "preprocessor_config.json"),
    "moshi": ("mimi.safetensors", "mimi.json"),
}
NO_MIMI = "this codec is no Mimi as others know it"


def import_mimi(source: str | Path, n_q: int | None = None) -> tuple[Codec, dict[str, Any]]:
    """A Mimi of others -> the codec in eval mode, without weight norm, and the configuration that rebuilds it.

    Args:
        source: a .safetensors file of either layout (beside it, transformers' has config.json; moshi's, where it is not
            of the published sizes, its configuration under the same name with .json), a folder with such a file, or the
            id of a repository on the Hugging Face Hub, such as kyutai/mimi.
        n_q: keep the first ``n_q`` codebooks only.

    Raises:
        CheckpointError: if it cannot be had, read or expressed; names the file, the field or the tensors.
    """
    path = locate_mimi(source)
    tensors = read_tensors(path)
    layout = recognise(tensors)
    if layout is None:
        raise CheckpointError(
            f"{path} is no Mimi: it has the first convolution neither of moshi's nor of transformers'"
        )
    if layout is TRANSFORMERS:
        stored = from_transformers(read_config(path.with_name("config.json")), str(path.with_name("config.json")))
    else:
        tensors = {as_published(name): value for name, value in tensors.items()}
        stored = _moshi_sizes(path, tensors)
    sizes = stored.with_n_q(n_q, str(path))
    dropped = set(names(layout, stored.depth)) - set(names(layout, sizes.depth))
    tensors = {name: value for name, value in tensors.items() if name not in dropped}

    tree = sizes.config()
    compare_tensors(
        to_layout(_outline(tree, path), layout, sizes.heads), tensors, f"{path} does not fit its configuration"
    )
    codec = build(tree)
    load_plain(codec, from_layout(tensors, layout, sizes), str(path))
    config = {"name": "mimi", "sample_rate": sizes.sample_rate, "frame_rate": sizes.frame_rate, "codec": tree}
    return codec.eval(), config


def export_mimi(codec: Codec, folder: str | Path, layout: str) -> list[Path]:
    """Write a codec for others -> the files written.

    Weight norm is folded into the weights. For ``MimiModel.from_pretrained(folder)``: model.safetensors, config.json
    and preprocessor_config.json. For ``moshi.models.loaders.get_mimi(file, config)``: mimi.safetensors, and the
    configuration in mimi.json (with the published sizes None does).

    Args:
        layout: "transformers" or "moshi".

    Raises:
        CheckpointError: if the codec is not a Mimi as the other side knows it; says in what it differs.
    """
    if layout not in LAYOUTS:
        raise CheckpointError(f"there is no layout {layout!r} of Mimi; valid are {', '.join(LAYOUTS)}")
    plain, sizes = _plain_mimi(codec)
    if layout == "transformers":
        texts = [sizes.to_transformers(), _preprocessor(sizes.sample_rate)]
    else:
        texts = [sizes.to_moshi()]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, *others = written = [folder / name for name in FILES[layout]]
    tensors = to_layout(plain, LAYOUTS[layout], sizes.heads)
    tensors = {name: value.float().cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, weights, {"format": "pt"})
    for path, content in zip(others, texts, strict=True):
        path.write_text(json.dumps(content, indent=2) + "\n")
    return written


def to_layout(plain: dict[str, Any], layout: Layout, heads: int) -> Tensors:
    """The state of a Mimi of ours without weight norm -> the tensors of a file of theirs."""
    flat = flatten(plain)
    depth = Depth.of(flat, OURS)
    theirs = dict(zip(names(OURS, depth), names(layout, depth), strict=True))
    tensors = {theirs[name]: value for name, value in flat.items()}
    return split_qkv(tensors, heads) if layout is TRANSFORMERS else tensors


def from_layout(tensors: Tensors, layout: Layout, sizes: MimiSizes) -> dict[str, Any]:
    """The inverse of :func:`to_layout`, in fp32."""
    tensors = {name: value.float() for name, value in tensors.items()}
    tensors = join_qkv(tensors, sizes.heads) if layout is TRANSFORMERS else tensors
    ours = dict(zip(names(layout, sizes.depth), names(OURS, sizes.depth), strict=True))
    return unflatten({ours[name]: value for name, value in tensors.items()}, (1, sizes.n_q - 1))


def _plain_mimi(codec: Codec) -> tuple[dict[str, Any], MimiSizes]:
    """The codec's state with weight norm folded, and its sizes.

    Raises:
        CheckpointError: if it is anything but a whole Mimi.
    """
    if codec.inference:
        raise CheckpointError("this codec is in its form for inference and cannot be exported: load it again")
    kinds = {"encoder": (MimiEncoder, SEANetEncoder), "decoder": (MimiDecoder, SEANetDecoder), "quantizer": (SplitRVQ,)}
    for name, (kind, *inner) in kinds.items():
        part = getattr(codec, name)
        whole = isinstance(part, kind) and all(isinstance(part.seanet, seanet) for seanet in inner)
        if not whole:
            raise CheckpointError(f"this codec is no Mimi: its {name} is a {type(part).__name__}")
        if inner and not (part.transformer and part.transformer.layers):
            raise CheckpointError(f"this codec's {name} has no transformer, and the Mimi of others always has one")
    attention = [
        {"heads": t.layers[0].heads, "context": t.context, "base": t.base}
        for t in (codec.encoder.transformer, codec.decoder.transformer)
    ]
    if attention[0] != attention[1]:
        raise CheckpointError(
            f"{NO_MIMI}: the attention of encoder and decoder differs, {attention[0]} and {attention[1]}"
        )
    dilations = {m.dilation[0] for m in codec.modules() if isinstance(m, nn.Conv1d)}
    if dilations != {1}:
        raise CheckpointError(f"{NO_MIMI}: it has dilations of {sorted(dilations)}")
    plain = plain_state(codec)
    try:
        sizes = from_shapes(_shapes(flatten(plain)), sample_rate=codec.sample_rate, **attention[0])
    except (KeyError, ValueError, ZeroDivisionError):
        raise CheckpointError(f"{NO_MIMI}: its SEANet has other layers than Mimi's") from None
    compare_tensors(_outline(sizes.config(), "this codec"), plain, NO_MIMI)
    return plain, sizes


def _outline(tree: dict[str, Any], source: str | Path) -> dict[str, Any]:
    """The state of a codec with this configuration, without its numbers."""
    try:
        with torch.device("meta"):
            return build(tree).state_dict()
    except CheckpointError:
        raise
    except Exception as error:  # the refusal of a part, wrapped by Hydra
        raise CheckpointError(f"{source} describes a Mimi that cannot be built: {error.__cause__ or error}") from None


def _moshi_sizes(path: Path, tensors: Tensors) -> MimiSizes:
    beside = path.with_suffix(".json")
    depth = Depth.of(tensors, MOSHI)
    theirs = names(MOSHI, depth)
    compare_tensors(dict.fromkeys(theirs), tensors, f"{path} is no whole Mimi")
    ours = dict(zip(theirs, names(OURS, depth), strict=True))
    shapes = _shapes({ours[name]: value for name, value in tensors.items()})
    config = read_config(beside) if beside.is_file() else {}
    try:
        return from_moshi(config, shapes, str(path))
    except CheckpointError:
        raise
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} is no Mimi: its tensors have other shapes ({error})") from None


def _shapes(tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _preprocessor(sample_rate: int) -> dict[str, Any]:
    """For transformers' AutoFeatureExtractor."""
    return {
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": 1,
        "sampling_rate": sample_rate,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "chunk_length_s": None,
        "overlap": None,
    }
