"""The numbers of a Mimi, and the configurations that hold them: ours, transformers' and moshi's.

What the others can configure and our classes cannot build is refused by name, rather than left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from codec.checkpoints.convert.mimi_names import OURS, Depth
from codec.checkpoints.load import CheckpointError

LARGEST, MOST_STRIDES = 2**20, 32  # a file from outside may say any number
Config = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

# What every Mimi of ours has, as transformers' MimiConfig says it.
TRANSFORMERS_FIXED: Config = {
    "audio_channels": 1,
    "num_residual_layers": 1,
    "num_semantic_quantizers": 1,
    "use_causal_conv": True,
    "use_conv_shortcut": False,
    "pad_mode": "constant",
    "trim_right_ratio": 1.0,
    "normalize": False,
    "hidden_act": "gelu",
    "norm_eps": 1e-5,
    "attention_bias": False,
}
# The same, as moshi's configuration says it (its loader's defaults have all of them).
MOSHI_FIXED: dict[str, Config] = {
    "seanet": {
        "channels": 1,
        "causal": True,
        "n_residual_layers": 1,
        "activation": "ELU",
        "disable_norm_outer_blocks": 0,
        "norm": "none",
        "pad_mode": "constant",
        "true_skip": True,
    },
    "transformer": {
        "causal": True,
        "conv_layout": True,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
    },
}


@dataclass(frozen=True)
class MimiSizes:
    """The numbers in which one Mimi differs from another; the defaults are the published ones.

    ``strides`` as the encoder goes; ``resample`` is the last stride, from the SEANets' frame rate to that of the codes;
    ``hidden``, ``context`` and ``base`` are the transformers'; without ``codebook_dim`` there are no projections.
    """

    sample_rate: int = 24_000
    dim: int = 512
    channels: int = 64
    strides: tuple[int, ...] = (4, 5, 6, 8)
    kernel: int = 7
    unit_kernel: int = 3
    last_kernel: int = 3
    compress: int = 2
    resample: int = 2
    layers: int = 8
    heads: int = 8
    hidden: int = 2048
    context: int = 250
    base: float = 10_000.0
    n_q: int = 32
    codebook_size: int = 2048
    codebook_dim: int | None = 256

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / (math.prod(self.strides) * self.resample)

    @property
    def depth(self) -> Depth:
        return Depth(len(self.strides), self.layers, self.n_q, self.resample > 1, self.codebook_dim is not None)

    def with_n_q(self, n_q: int | None, source: str) -> "MimiSizes":
        """The same with the first ``n_q`` codebooks only (None: all)."""
        if n_q is None:
            return self
        if not 2 <= n_q <= self.n_q:
            raise CheckpointError(f"n_q={n_q}, but {source} has {self.n_q} codebooks: choose 2 to {self.n_q}")
        return replace(self, n_q=n_q)

    def config(self) -> Config:
        """Our configuration of the codec, without weight norm: what plain weights fit exactly."""
        quantizer = {
            "_target_": "codec.quantizers.split_rvq.SplitRVQ",
            "dim": self.dim,
            "frame_rate": self.frame_rate,
            "n_q": self.n_q,
            "codebook_size": self.codebook_size,
            "codebook_dim": self.codebook_dim,
        }
        return {
            "_target_": "codec.model.Codec",
            "encoder": self._side("encoder"),
            "quantizer": quantizer,
            "decoder": self._side("decoder"),
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
        }

    def _side(self, side: str) -> Config:
        units = {
            "_target_": "codec.layers.seanet.ResidualUnits",
            "dilations": [1],
            "kernel": self.unit_kernel,
            "compress": self.compress,
            "shortcut": "identity",
        }
        seanet = {
            "_target_": f"codec.{side}s.seanet.SEANet{side.title()}",
            "dim": self.dim,
            "channels": self.channels,
            "strides": list(self.strides),
            "units": units,
            "kernel": self.kernel,
            "last_kernel": self.last_kernel,
            "lstm": 0,
            "weight_norm": False,
        }
        transformer = {
            "_target_": "codec.layers.transformer.Transformer",
            "dim": self.dim,
            "layers": self.layers,
            "heads": self.heads,
            "hidden": self.hidden,
            "context": self.context,
            "base": self.base,
        }
        own = {"seanet": seanet, "transformer": transformer, "resample": self.resample}
        return {"_target_": f"codec.{side}s.mimi.Mimi{side.title()}", **own}

    def to_transformers(self) -> Config:
        """``config.json`` of a MimiModel.

        Raises:
            CheckpointError: if transformers would build something else from it.
        """
        between = math.ceil(self.sample_rate / math.prod(self.strides))  # of transformers, frames per second, rounded
        if self.resample == 1 or int(between / self.frame_rate) != self.resample:
            raise CheckpointError(
                f"transformers' Mimi cannot have resample={self.resample} at {self.sample_rate} Hz and a hop of "
                f"{math.prod(self.strides)} samples before it: export it to moshi"
            )
        return TRANSFORMERS_FIXED | {
            "model_type": "mimi",
            "architectures": ["MimiModel"],
            "sampling_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "hidden_size": self.dim,
            "num_filters": self.channels,
            "upsampling_ratios": list(reversed(self.strides)),
            "kernel_size": self.kernel,
            "residual_kernel_size": self.unit_kernel,
            "last_kernel_size": self.last_kernel,
            "compress": self.compress,
            "dilation_growth_rate": 2,
            "upsample_groups": self.dim,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.dim // self.heads,
            "intermediate_size": self.hidden,
            "sliding_window": self.context,
            "rope_theta": self.base,
            "num_quantizers": self.n_q,
            "codebook_size": self.codebook_size,
            "codebook_dim": self.codebook_dim or self.dim,
            "vector_quantization_hidden_dimension": self.codebook_dim or self.dim,
        }

    def to_moshi(self) -> Config:
        """What moshi's ``loaders.get_mimi`` takes as ``mimi_config``."""
        if self.codebook_dim is None:
            raise CheckpointError("moshi's Mimi always has projections around its codebooks: this one has none")
        seanet = {
            "dimension": self.dim,
            "n_filters": self.channels,
            "ratios": list(reversed(self.strides)),
            "dilation_base": 2,
            "kernel_size": self.kernel,
            "residual_kernel_size": self.unit_kernel,
            "last_kernel_size": self.last_kernel,
            "compress": self.compress,
        }
        transformer = {
            "d_model": self.dim,
            "input_dimension": self.dim,
            "output_dimensions": [self.dim],
            "num_layers": self.layers,
            "num_heads": self.heads,
            "dim_feedforward": self.hidden,
            "context": self.context,
            "max_period": self.base,
            "layer_scale": 0.01,
        }
        quantizer = {
            "dimension": self.codebook_dim,
            "input_dimension": self.dim,
            "output_dimension": self.dim,
            "n_q": self.n_q,
            "bins": self.codebook_size,
        }
        return {
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "channels": 1,
            "seanet": MOSHI_FIXED["seanet"] | seanet,
            "transformer": MOSHI_FIXED["transformer"] | transformer,
            "quantizer": quantizer,
        }


def from_transformers(config: Config, source: str) -> MimiSizes:
    """The sizes in a MimiModel's ``config.json``; what is not there is as published.

    Raises:
        CheckpointError: names the field that our classes cannot express.
    """
    number = lambda field, default: _number(config, field, default, source)  # noqa: E731
    dim, heads = number("hidden_size", 512), number("num_attention_heads", 8)
    quantizer_dim = number("vector_quantization_hidden_dimension", 256)
    rope = {"rope_theta": config.get("rope_theta", 10_000.0)}  # version 4; version 5 has rope_parameters
    rope |= _table(config, "rope_scaling", source) | _table(config, "rope_parameters", source)
    fixed = TRANSFORMERS_FIXED | {
        "upsample_groups": dim,
        "num_key_value_heads": heads,
        "head_dim": dim // heads,
        "codebook_dim": quantizer_dim,
        "encoder_config": {},
        "decoder_config": {},
    }
    for field, value in fixed.items():
        # A null head_dim is the default; a null encoder_config is a model without that half.
        if field in config and config[field] != value and not (field == "head_dim" and config[field] is None):
            raise _cannot(source, field, config[field], value)
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise _cannot(source, "rope_parameters", rope, "the default type")
    strides = _strides(config.get("upsampling_ratios") or [8, 6, 5, 4], "upsampling_ratios", source)
    sizes = MimiSizes(
        sample_rate=number("sampling_rate", 24_000),
        dim=dim,
        channels=number("num_filters", 64),
        strides=strides,
        kernel=number("kernel_size", 7),
        unit_kernel=number("residual_kernel_size", 3),
        last_kernel=number("last_kernel_size", 3),
        compress=number("compress", 2),
        layers=number("num_hidden_layers", 8),
        heads=heads,
        hidden=number("intermediate_size", 2048),
        context=number("sliding_window", 250),
        base=_positive(rope, "rope_theta", 10_000.0, source),
        n_q=number("num_quantizers", 32),
        codebook_size=number("codebook_size", 2048),
        codebook_dim=None if quantizer_dim == dim else quantizer_dim,
    )
    frame_rate = config.get("frame_rate") or config.get("_frame_rate")  # null: a last stride of 2
    return sizes if frame_rate is None else _at_rate(sizes, frame_rate, source)


def from_moshi(config: Config, shapes: Shapes, source: str) -> MimiSizes:
    """The sizes that shapes (under our flat names) tell, and the others from moshi's configuration.

    Without a configuration (Kyutai's files have none) the sample rate, the window and the base are the published ones,
    and a head has 64 channels.

    Raises:
        CheckpointError: names the field that our classes cannot express, or that is missing.
    """
    parts = {part: _table(config, part, source) for part in MOSHI_FIXED}
    for part, fixed in MOSHI_FIXED.items():
        for field, value in fixed.items():
            if parts[part].get(field, value) != value:
                raise _cannot(source, f"{part}.{field}", parts[part][field], value)
    dim = shapes["encoder.transformer.layers.0.qkv.weight"][-1]
    if "num_heads" not in parts["transformer"] and dim % 64:
        raise CheckpointError(
            f"{source} does not tell how many attention heads share its {dim} channels, which are no multiple of the "
            "usual 64 for each: put moshi's configuration of it beside it, under the same name with .json"
        )
    return from_shapes(
        shapes,
        sample_rate=_number(config, "sample_rate", 24_000, source),
        heads=_number(parts["transformer"], "num_heads", dim // 64, source),
        context=_number(parts["transformer"], "context", 250, source),
        base=_positive(parts["transformer"], "max_period", 10_000.0, source),
    )


def from_shapes(shapes: Shapes, **others: Any) -> MimiSizes:
    """The sizes that the shapes of the encoder and the quantizer tell (under our flat names), and ``others``."""
    depth = Depth.of(shapes, OURS)
    conv = lambda n, inner="": shapes[f"encoder.seanet.layers.{n}.{inner}conv.weight"]  # noqa: E731
    (channels, _, kernel), (hidden, _, unit_kernel) = conv(0), conv(1, "block.1.")
    dim, _, last_kernel = conv(3 * depth.stages + 2)
    size, width = shapes["quantizer.semantic.0.sums"]
    return MimiSizes(
        dim=dim,
        channels=channels,
        strides=tuple(conv(3 * stage + 3)[2] // 2 for stage in range(depth.stages)),
        kernel=kernel,
        unit_kernel=unit_kernel,
        last_kernel=last_kernel,
        compress=channels // hidden,
        resample=shapes["encoder.downsample.conv.weight"][2] // 2 if depth.resampled else 1,
        layers=depth.layers,
        hidden=shapes["encoder.transformer.layers.0.up.weight"][0],
        n_q=depth.n_q,
        codebook_size=size,
        codebook_dim=width if depth.projected else None,
        **others,
    )


def _number(config: Config, field: str, default: int, source: str) -> int:
    value = config.get(field, default)
    if not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise _cannot(source, field, value, f"a whole number from 1 to {LARGEST}")
    return value


def _positive(config: Config, field: str, default: float, source: str) -> float:
    value = config.get(field, default)
    if not isinstance(value, int | float) or not 0 < value <= 2.0**64:
        raise _cannot(source, field, value, "a number from 0 to 2^64")
    return float(value)


def _table(config: Config, field: str, source: str) -> Config:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise _cannot(source, field, value, "fields with values")
    return value


def _strides(ratios: Any, field: str, source: str) -> tuple[int, ...]:
    numbers = isinstance(ratios, list) and len(ratios) <= MOST_STRIDES and all(isinstance(r, int) for r in ratios)
    if not numbers or not all(1 <= r <= LARGEST for r in ratios):
        raise _cannot(source, field, ratios, f"a list of at most {MOST_STRIDES} whole numbers from 1 to {LARGEST}")
    return tuple(reversed(ratios))


def _at_rate(sizes: MimiSizes, frame_rate: Any, source: str) -> MimiSizes:
    """The sizes with the last stride that gives this frame rate."""
    between = sizes.sample_rate / math.prod(sizes.strides)
    stride = between / frame_rate if isinstance(frame_rate, int | float) and 0 < frame_rate <= LARGEST else 0.5
    if not 0.5 < stride <= LARGEST or abs(stride - round(stride)) > 1e-6:
        raise _cannot(source, "frame_rate", frame_rate, f"{between:g} divided by a whole number")
    return replace(sizes, resample=round(stride))


def _cannot(source: str, field: str, value: Any, valid: Any) -> CheckpointError:
    value = repr(value)[:100]
    return CheckpointError(f"{source} has {field}={value}, which this project's Mimi cannot be: it has {valid} only")
