"""The sizes of a Mimi, converted between the configurations of this project, transformers and moshi."""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from codec.checkpoints.convert.mimi_names import renamed
from codec.checkpoints.load import CheckpointError
from codec.utils.safe_io import Schema, UntrustedFileError, parse_as

LARGEST = 2**20  # of any size in an untrusted file
Size = Annotated[int, Field(ge=1, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=1000)]
Config = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

# Options that this project's Mimi does not vary, under transformers' names
TRANSFORMERS_FIXED: Config = dict(audio_channels=1, num_residual_layers=1, num_semantic_quantizers=1, hidden_act="gelu")
TRANSFORMERS_FIXED |= dict(use_causal_conv=True, use_conv_shortcut=False, pad_mode="constant", trim_right_ratio=1.0)
TRANSFORMERS_FIXED |= dict(normalize=False, norm_eps=1e-5, attention_bias=False)
# The same under moshi's names, which are also its loader's defaults
MOSHI_FIXED: dict[str, Config] = {
    "seanet": dict(channels=1, causal=True, n_residual_layers=1, activation="ELU", norm="none", pad_mode="constant")
    | dict(disable_norm_outer_blocks=0, true_skip=True),
    "transformer": dict(causal=True, conv_layout=True, gating="none", norm="layer_norm", positional_embedding="rope"),
}


class MimiSizes(Schema):
    """The sizes of a Mimi; defaults are the published values, aliases transformers' names.

    ``ratios`` are the SEANet's strides in the decoder's order; ``resample`` is the stride from the SEANet's frame rate
    to that of the codes; ``hidden``, ``context`` (frames) and ``base`` (of RoPE) are the transformers'.
    ``codebook_dim`` None means no projections around the codebooks.
    """

    model_config = ConfigDict(populate_by_name=True)

    sample_rate: Size = Field(24_000, alias="sampling_rate")
    dim: Size = Field(512, alias="hidden_size")
    channels: Size = Field(64, alias="num_filters")
    ratios: list[Size] = Field([8, 6, 5, 4], alias="upsampling_ratios", min_length=1, max_length=32)
    kernel: Size = Field(7, alias="kernel_size")
    unit_kernel: Size = Field(3, alias="residual_kernel_size")
    last_kernel: Size = Field(3, alias="last_kernel_size")
    compress: Size = Field(2, alias="compress")
    resample: Size = 2
    layers: Count = Field(8, alias="num_hidden_layers")
    heads: Count = Field(8, alias="num_attention_heads")
    hidden: Size = Field(2048, alias="intermediate_size")
    context: Size = Field(250, alias="sliding_window")
    base: float = Field(10_000.0, alias="rope_theta", gt=0, le=2.0**64)
    n_q: Count = Field(32, alias="num_quantizers")
    codebook_size: Size = Field(2048, alias="codebook_size")
    codebook_dim: Size | None = Field(256, alias="vector_quantization_hidden_dimension")

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate / (math.prod(self.ratios) * self.resample)

    def config(self) -> Config:
        """The codec's configuration for :func:`codec.checkpoints.safe_instantiate.build`, without weight norm."""
        quantizer = {"_target_": "codec.quantizers.split_rvq.SplitRVQ", "dim": self.dim, "frame_rate": self.frame_rate}
        quantizer |= self.model_dump(include={"n_q", "codebook_size", "codebook_dim"})
        parts = {"encoder": self._side("encoder"), "quantizer": quantizer, "decoder": self._side("decoder")}
        return {
            "_target_": "codec.model.Codec",
            **parts,
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
        }

    def _side(self, side: str) -> Config:
        units = {"dilations": [1], "kernel": self.unit_kernel, "compress": self.compress, "shortcut": "identity"}
        seanet = {
            "_target_": f"codec.{side}s.seanet.SEANet{side.title()}",
            **self.model_dump(include={"dim", "channels", "kernel", "last_kernel"}),
            "strides": self.ratios[::-1],
            "units": {"_target_": "codec.layers.seanet.ResidualUnits", **units},
            "lstm": 0,
            "weight_norm": False,
        }
        transformer = self.model_dump(include={"dim", "layers", "heads", "hidden", "context", "base"})
        transformer |= {"_target_": "codec.layers.transformer.Transformer"}
        own = {"seanet": seanet, "transformer": transformer, "resample": self.resample}
        return {"_target_": f"codec.{side}s.mimi.Mimi{side.title()}", **own}

    def to_transformers(self) -> Config:
        """``config.json`` of a MimiModel; raises CheckpointError if transformers would build another model."""
        hop = math.prod(self.ratios)
        if self.resample == 1 or int(math.ceil(self.sample_rate / hop) / self.frame_rate) != self.resample:
            raise CheckpointError(
                f"transformers' Mimi cannot have resample={self.resample} at {self.sample_rate} Hz and a hop of "
                f"{hop} samples before it: export it to moshi"
            )
        width = self.codebook_dim or self.dim
        derived = dict(frame_rate=self.frame_rate, upsample_groups=self.dim, num_key_value_heads=self.heads)
        derived |= dict(codebook_dim=width, vector_quantization_hidden_dimension=width, head_dim=self.dim // self.heads)
        kind = {"model_type": "mimi", "architectures": ["MimiModel"], "dilation_growth_rate": 2}
        return TRANSFORMERS_FIXED | kind | self.model_dump(by_alias=True, exclude={"resample"}) | derived

    def to_moshi(self) -> Config:
        """The ``mimi_config`` for moshi's ``loaders.get_mimi``."""
        if self.codebook_dim is None:
            raise CheckpointError("moshi's Mimi always has projections around its codebooks: this one has none")
        seanet = dict(dimension=self.dim, n_filters=self.channels, ratios=self.ratios, compress=self.compress)
        seanet |= dict(
            kernel_size=self.kernel, residual_kernel_size=self.unit_kernel, last_kernel_size=self.last_kernel
        )
        transformer = dict(d_model=self.dim, input_dimension=self.dim, output_dimensions=[self.dim], layer_scale=0.01)
        transformer |= dict(num_layers=self.layers, num_heads=self.heads, dim_feedforward=self.hidden)
        quantizer = dict(dimension=self.codebook_dim, input_dimension=self.dim, output_dimension=self.dim)
        return {
            "sample_rate": self.sample_rate,
            "frame_rate": self.frame_rate,
            "channels": 1,
            "seanet": MOSHI_FIXED["seanet"] | seanet | {"dilation_base": 2},
            "transformer": MOSHI_FIXED["transformer"] | transformer | dict(context=self.context, max_period=self.base),
            "quantizer": quantizer | dict(n_q=self.n_q, bins=self.codebook_size),
        }


def from_transformers(config: Config, source: str) -> MimiSizes:
    """The sizes in a MimiModel's ``config.json``; absent fields have the published values.

    Raises CheckpointError for a field that this project's Mimi does not support.
    """
    rope = _table(config, "rope_scaling", source) | _table(config, "rope_parameters", source)  # versions 4 and 5
    if (kind := rope.get("rope_type", rope.get("type", "default"))) != "default":
        raise _unsupported(source, "rope_parameters", kind, "default")
    aliases = {field.alias for field in MimiSizes.model_fields.values()}
    given = {key: value for key, value in (config | rope).items() if key in aliases}
    if not given.get("upsampling_ratios", True):  # transformers, too, takes an empty one for the default
        del given["upsampling_ratios"]
    sizes = validated(given, source)
    fixed = {"upsample_groups": sizes.dim, "num_key_value_heads": sizes.heads, "codebook_dim": sizes.codebook_dim}
    if config.get("head_dim") is not None:
        fixed["head_dim"] = sizes.dim // sizes.heads
    _check_fixed(config, TRANSFORMERS_FIXED | fixed | {"encoder_config": {}, "decoder_config": {}}, source)
    changes = {"codebook_dim": None} if sizes.codebook_dim == sizes.dim else {}
    if frame_rate := config.get("frame_rate") or config.get("_frame_rate"):  # absent: the published resampling
        between = sizes.sample_rate / math.prod(sizes.ratios)
        stride = between / frame_rate if isinstance(frame_rate, int | float) and 0 < frame_rate <= LARGEST else 0
        if not 0.5 < stride <= LARGEST or abs(stride - round(stride)) > 1e-6:
            raise _unsupported(source, "frame_rate", frame_rate, f"{between:g} divided by a whole number")
        changes["resample"] = round(stride)
    return sizes.model_copy(update=changes)


def from_moshi(config: Config, shapes: Shapes, source: str) -> MimiSizes:
    """The sizes of moshi's Mimi from its tensors' shapes (flat names of ``mimi_names``) and its configuration.

    Without a configuration (Kyutai's files have none), sample rate, context and base are the published values, and an
    attention head has 64 channels. Raises CheckpointError if the sizes are unsupported or not determined.
    """
    for part, fixed in MOSHI_FIXED.items():
        _check_fixed(_table(config, part, source), fixed, source, f"{part}.")
    sizes, transformer = from_shapes(shapes, source, "moshi"), _table(config, "transformer", source)
    if "num_heads" not in transformer and sizes["dim"] % 64:
        raise CheckpointError(
            f"{source} does not tell how many attention heads share its {sizes['dim']} channels, which are no multiple "
            "of the usual 64 for each: put moshi's configuration of it beside it, under the same name with .json"
        )
    sizes |= {
        "sample_rate": config.get("sample_rate", 24_000),
        "heads": transformer.get("num_heads", sizes["dim"] // 64),
    }
    sizes |= {"context": transformer.get("context", 250), "base": transformer.get("max_period", 10_000.0)}
    return validated(sizes, source)


def from_shapes(shapes: Shapes, source: str, layout: str = "ours") -> Config:
    """The sizes of a Mimi from its tensors' shapes (flat names); error messages have the names of ``layout``."""
    try:
        return _sizes_in(shapes)
    except KeyError as error:
        missing = renamed(error.args[0], "ours", layout)
        raise CheckpointError(f"{source} is no whole Mimi: {missing} is missing") from None
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"{source} is no Mimi: its tensors have other shapes ({error})") from None


def _sizes_in(shapes: Shapes) -> Config:
    last = lambda before: max(int(found[1]) for name in shapes if (found := re.match(before + r"(\d+)\.", name)))  # noqa: E731
    conv = lambda n, inner="": shapes[f"encoder.seanet.layers.{n}.{inner}conv.weight"]  # noqa: E731
    stages = last(r"encoder\.seanet\.layers\.") // 3
    (channels, _, kernel), (hidden, _, unit_kernel) = conv(0), conv(1, "block.1.")
    dim, _, last_kernel = conv(3 * stages + 2)
    codebook_size, codebook_dim = shapes["quantizer.semantic.0.sums"]
    downsample = shapes.get("encoder.downsample.conv.weight")
    return {
        "dim": dim,
        "channels": channels,
        "ratios": [conv(3 * stage)[2] // 2 for stage in range(stages, 0, -1)],
        "kernel": kernel,
        "unit_kernel": unit_kernel,
        "last_kernel": last_kernel,
        "compress": channels // hidden,
        "resample": downsample[2] // 2 if downsample else 1,
        "layers": last(r"encoder\.transformer\.layers\.") + 1,
        "hidden": shapes["encoder.transformer.layers.0.up.weight"][0],
        "n_q": last(r"quantizer\.acoustic\.") + 2,
        "codebook_size": codebook_size,
        "codebook_dim": codebook_dim if "quantizer.semantic.project_in.weight" in shapes else None,
    }


def validated(sizes: Config, source: str) -> MimiSizes:
    """The sizes as a :class:`MimiSizes`; raises CheckpointError if one is out of range."""
    try:
        return parse_as(MimiSizes, sizes, source)
    except UntrustedFileError as error:
        raise CheckpointError(str(error)) from None


def _check_fixed(config: Config, fixed: Config, source: str, prefix: str = "") -> None:
    for field, value in fixed.items():
        if config.get(field, value) != value:
            raise _unsupported(source, prefix + field, config[field], value)


def _table(config: Config, field: str, source: str) -> Config:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise _unsupported(source, field, value, "an object")
    return value


def _unsupported(source: str, field: str, value: Any, valid: Any) -> CheckpointError:
    return CheckpointError(f"{source} has {field}={value!r:.100}: this project's Mimi supports {valid} only")
