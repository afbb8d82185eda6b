"""Import and export of Mimi (arXiv 2410.00037) weights in the layouts of moshi and of transformers' MimiModel.

Latents, codes and waveforms agree to fp32 rounding for whole frames. For other lengths moshi and this project zero-pad
the waveform once; transformers pads before each strided convolution, and its last frame differs.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from codec.checkpoints.convert import mimi_names
from codec.checkpoints.convert.locate import locate_mimi, read_config, read_tensors
from codec.checkpoints.convert.mimi_config import MimiSizes, from_moshi, from_shapes, from_transformers, validated
from codec.checkpoints.convert.mimi_names import Tensors, flatten, layout_of, renamed
from codec.checkpoints.convert.weight_norm import load_plain, plain_state
from codec.checkpoints.load import CheckpointError, compare_tensors
from codec.checkpoints.safe_instantiate import build
from codec.decoders.mimi import MimiDecoder
from codec.decoders.seanet import SEANetDecoder
from codec.encoders.mimi import MimiEncoder
from codec.encoders.seanet import SEANetEncoder
from codec.model import Codec
from codec.quantizers.split_rvq import SplitRVQ

FILES = {  # of an export, the weights first
    "transformers": ("model.safetensors", "config.json", "preprocessor_config.json"),
    "moshi": ("mimi.safetensors", "mimi.json"),
}
NO_MIMI = "this codec is no Mimi as others define it"


def import_mimi(source: str | Path, n_q: int | None = None) -> tuple[Codec, dict[str, Any]]:
    """A published Mimi as a codec in eval mode, without weight norm, and the configuration that rebuilds it.

    Args:
        source: a .safetensors file of either layout, a folder with one, or a Hugging Face Hub id (kyutai/mimi).
            transformers' needs config.json beside it, moshi's NAME.json if not of the published sizes.
        n_q: number of codebooks to keep, from the first; None for all.

    Raises CheckpointError if the files cannot be found or read, or describe a Mimi that is not supported.
    """
    path = locate_mimi(source)
    tensors = read_tensors(path)
    layout = layout_of(tensors)
    if layout is None:
        raise CheckpointError(f"{path} is no Mimi: its tensors have neither moshi's nor transformers' names")
    if layout == "transformers":
        config = path.with_name("config.json")
        sizes = from_transformers(read_config(config), str(config))
    else:
        tensors = {mimi_names.published(name): value for name, value in tensors.items()}
        sizes = _moshi_sizes(path, tensors)
    if n_q is not None:
        if not 2 <= n_q <= sizes.n_q:
            raise CheckpointError(f"n_q={n_q}, but {path} has {sizes.n_q} codebooks: choose 2 to {sizes.n_q}")
        full, sizes = sizes, sizes.model_copy(update={"n_q": n_q})
        dropped = _expected(full, layout, path).keys() - _expected(sizes, layout, path).keys()
        tensors = {name: value for name, value in tensors.items() if name not in dropped}
    compare_tensors(_expected(sizes, layout, path), tensors, f"{path} does not fit its configuration")
    tree = sizes.config()
    codec = build(tree)
    load_plain(codec, from_layout(tensors, layout, sizes), str(path))
    config = {"name": "mimi", "sample_rate": sizes.sample_rate, "frame_rate": sizes.frame_rate, "codec": tree}
    return codec.eval(), config


def export_mimi(codec: Codec, folder: str | Path, layout: str) -> list[Path]:
    """Write a codec as a Mimi of another library, with weight norm folded; returns the files written.

    ``layout`` "transformers" is for ``MimiModel.from_pretrained(folder)``, "moshi" for
    ``moshi.models.loaders.get_mimi(file, config)`` with the content of mimi.json (or None, for the published sizes).
    Raises CheckpointError if that library's Mimi cannot express the codec.
    """
    if layout not in FILES:
        raise CheckpointError(f"there is no layout {layout!r} of Mimi; valid are {', '.join(FILES)}")
    plain, sizes = _plain_mimi(codec)
    if layout == "transformers":
        configs = [sizes.to_transformers(), _preprocessor(sizes.sample_rate)]
    else:
        configs = [sizes.to_moshi()]
    Path(folder).mkdir(parents=True, exist_ok=True)
    weights, *others = written = [Path(folder, name) for name in FILES[layout]]
    tensors = to_layout(plain, layout, sizes.heads)
    tensors = {name: value.float().cpu().contiguous() for name, value in tensors.items()}
    save_file(tensors, weights, {"format": "pt"})
    for path, content in zip(others, configs, strict=True):
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return written


def to_layout(plain: dict[str, Any], layout: str, heads: int) -> Tensors:
    """The tensors of a file in ``layout``, from the state of this project's Mimi without weight norm."""
    tensors = {renamed(name, "ours", layout): value for name, value in flatten(plain).items()}
    return mimi_names.split_qkv(tensors, heads) if layout == "transformers" else tensors


def from_layout(tensors: Tensors, layout: str, sizes: MimiSizes) -> dict[str, Any]:
    """The inverse of :func:`to_layout`, in fp32."""
    tensors = {name: value.float() for name, value in tensors.items()}
    tensors = mimi_names.join_qkv(tensors, sizes.heads) if layout == "transformers" else tensors
    return mimi_names.unflatten({renamed(name, layout, "ours"): value for name, value in tensors.items()}, sizes.n_q)


def _plain_mimi(codec: Codec) -> tuple[dict[str, Any], MimiSizes]:
    """The codec's state with weight norm folded, and its sizes; raises CheckpointError if it is no Mimi."""
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
    sizes = from_shapes(_shapes(flatten(plain)), NO_MIMI) | attention[0] | {"sample_rate": codec.sample_rate}
    sizes = validated(sizes, NO_MIMI)
    compare_tensors(_meta_state(sizes, NO_MIMI), plain, NO_MIMI)
    return plain, sizes


def _moshi_sizes(path: Path, tensors: Tensors) -> MimiSizes:
    config = read_config(path.with_suffix(".json")) if path.with_suffix(".json").is_file() else {}
    ours = {renamed(name, "moshi", "ours"): value for name, value in tensors.items()}
    ours.pop(None, None)  # unknown names
    return from_moshi(config, _shapes(ours), str(path))


def _expected(sizes: MimiSizes, layout: str, source: str | Path) -> Tensors:
    """The tensors of a Mimi's file in ``layout``, on the meta device."""
    return to_layout(_meta_state(sizes, source), layout, sizes.heads)


def _meta_state(sizes: MimiSizes, source: str | Path) -> dict[str, Any]:
    try:
        with torch.device("meta"):
            return build(sizes.config()).state_dict()
    except CheckpointError as error:
        raise CheckpointError(f"{source} describes a Mimi that cannot be built: {error}") from None


def _shapes(tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _preprocessor(sample_rate: int) -> dict[str, Any]:
    """The configuration of transformers' AutoFeatureExtractor."""
    fields = dict(feature_extractor_type="EncodecFeatureExtractor", feature_size=1, sampling_rate=sample_rate)
    fields |= dict(padding_side="right", padding_value=0.0, return_attention_mask=True)
    return fields | dict(chunk_length_s=None, overlap=None)
