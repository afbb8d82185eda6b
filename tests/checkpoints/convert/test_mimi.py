"""Mimi of transformers -> ours -> transformers and moshi, for whole frames (codec/checkpoints/convert/mimi.py)."""

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, MimiConfig, MimiModel

from codec.checkpoints.convert.mimi import export_mimi, import_mimi
from codec.checkpoints.convert.mimi_config import MimiSizes, from_transformers
from codec.checkpoints.convert.mimi_names import exact_sums
from codec.checkpoints.safe_instantiate import CheckpointError, build
from tests.helpers.codes import assert_codes_equal
from tests.helpers.mimi_models import HOP, SMALL, noise, random_mimi
from tests.helpers.parts import small_codec

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """-> the model and the folder it was saved in."""
    model = random_mimi(noise(4, 60 * HOP, seed=1), **SMALL)
    folder = tmp_path_factory.mktemp("small")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture
def codec(small):
    return import_mimi(small[1])[0]


@pytest.fixture
def config(small):
    return import_mimi(small[1])[1]["codec"]


@torch.no_grad()
def assert_parity(codec, model, wav):
    """Latents and waveforms within 1e-4, of values around 1; codes equal but for ties."""
    latents = codec.latents(wav)
    assert 0.1 < latents.std() < 100
    torch.testing.assert_close(latents, model.encoder(wav).latents, atol=1e-4, rtol=1e-5)
    codes, found = model.encode(wav).audio_codes, codec.encode(wav)
    assert torch.equal(found[:, 0], codes[:, 0])
    assert_codes_equal(found, codes, codec, latents)
    decoded = model.decode(codes).audio_values
    assert 0.1 < decoded.std() < 100
    torch.testing.assert_close(codec.decode(codes), decoded, atol=1e-4, rtol=1e-5)


def assert_same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)


def from_pretrained(folder):
    """-> the model; no tensor may be missing or left over."""
    model, info = MimiModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def test_small_model_from_transformers_and_back(small, codec, tmp_path):
    model = small[0]
    assert_parity(codec, model, noise(2, 40 * HOP, seed=3))  # 80 frames in the transformers, whose window is 10
    assert (codec.sample_rate, codec.frame_rate, codec.hop_length) == (2400, 25, HOP)
    assert codec.quantizer.acoustic.steps > 0  # or training would begin with k-means over the codebooks
    export_mimi(codec, tmp_path, "transformers")
    back = from_pretrained(tmp_path)
    assert_same_state(back, model)
    before, after = model.config.to_dict(), back.config.to_dict()
    for field in before.keys() - {"_frame_rate", "_name_or_path", "dtype"}:
        assert after[field] == before[field], field
    assert back.config.frame_rate == model.config.frame_rate
    assert AutoFeatureExtractor.from_pretrained(tmp_path).sampling_rate == 2400
    assert_same_state(import_mimi(tmp_path)[0], codec)


def test_the_attention_window_matters(small, codec):
    """Or parity would prove little."""
    wav = noise(1, 40 * HOP, seed=3)
    with torch.no_grad():
        codes, latents = codec.encode(wav), codec.latents(wav)
        decoded = codec.decode(codes)
        codec.encoder.transformer.context = codec.decoder.transformer.context = 20
        assert (codec.latents(wav) - latents).abs().max() > 0.1
        assert (codec.decode(codes) - decoded).abs().max() > 0.1


VARIANTS = {
    "last stride 4": dict(frame_rate=12.5),
    "no projections": dict(codebook_dim=32, vector_quantization_hidden_dimension=32),
    "other kernels": dict(kernel_size=5, last_kernel_size=5, residual_kernel_size=5, compress=1, num_filters=6),
    "other attention": dict(
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        sliding_window=3,
    ),
    "other stages": dict(upsampling_ratios=[3, 2], num_hidden_layers=1, num_quantizers=2, sampling_rate=600),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_sizes(variant, tmp_path):
    model = random_mimi(noise(4, 40 * HOP, seed=1), **SMALL | VARIANTS[variant])
    model.save_pretrained(tmp_path)
    codec, config = import_mimi(tmp_path)
    assert_parity(codec, model, noise(2, 20 * HOP, seed=2))
    export_mimi(codec, tmp_path / "transformers", "transformers")
    assert_same_state(from_pretrained(tmp_path / "transformers"), model)
    if variant == "no projections":
        with pytest.raises(CheckpointError, match="moshi's Mimi always has projections"):
            export_mimi(codec, tmp_path / "moshi", "moshi")
    else:
        export_mimi(codec, tmp_path / "moshi", "moshi")
        back, same = import_mimi(tmp_path / "moshi")
        assert same == config
        assert_same_state(back, codec)


def test_published_sizes_are_the_defaults():
    theirs, default = MimiConfig(**MimiSizes().to_transformers()), MimiConfig()
    for field, value in default.to_dict().items():
        if field not in ("architectures", "_frame_rate", "transformers_version"):
            assert getattr(theirs, field) == value, field
    assert theirs.frame_rate == default.frame_rate == 12.5
    assert from_transformers({}, "") == from_transformers(default.to_dict(), "") == MimiSizes()
    assert from_transformers(MimiSizes(base=500.0).to_transformers(), "").base == 500.0
    assert MimiConfig(**MimiSizes(base=500.0).to_transformers()).rope_parameters["rope_theta"] == 500.0


def moshi_file() -> dict[str, tuple[int, ...]]:
    """Names and shapes in Kyutai's tokenizer-e351c8d8-checkpoint125.safetensors, by rule."""
    convs, shapes = {}, {}  # name: (shape of the weight, of the bias)
    convs["encoder.model.0.conv.conv"], convs["decoder.model.14.conv.conv"] = ((64, 1, 7), 64), ((1, 64, 3), 1)
    convs["encoder.model.14.conv.conv"] = ((512, 1024, 3), 512)
    convs["decoder.model.0.conv.conv"] = ((1024, 512, 7), 1024)
    for stage, (width, stride) in enumerate([(64, 4), (128, 5), (256, 6), (512, 8)]):
        down, up = f"encoder.model.{3 + 3 * stage}.conv.conv", f"decoder.model.{11 - 3 * stage}.convtr.convtr"
        convs |= {name: ((2 * width, width, 2 * stride), bias) for name, bias in ((down, 2 * width), (up, width))}
        for unit in (f"encoder.model.{1 + 3 * stage}", f"decoder.model.{12 - 3 * stage}"):
            convs[f"{unit}.block.1.conv.conv"] = ((width // 2, width, 3), width // 2)
            convs[f"{unit}.block.3.conv.conv"] = ((width, width // 2, 1), width)
    for name, (weight, bias) in convs.items():
        shapes |= {f"{name}.weight": weight, f"{name}.bias": (bias,)}
    for place in [f"{side}_transformer.transformer.layers.{n}" for side in ("encoder", "decoder") for n in range(8)]:
        shapes |= {f"{place}.norm{n}.{leaf}": (512,) for n in (1, 2) for leaf in ("weight", "bias")}
        shapes |= {f"{place}.layer_scale_{n}.scale": (512,) for n in (1, 2)}
        shapes |= {f"{place}.self_attn.in_proj_weight": (1536, 512), f"{place}.self_attn.out_proj.weight": (512, 512)}
        shapes |= {f"{place}.linear1.weight": (2048, 512), f"{place}.linear2.weight": (512, 2048)}
    shapes |= {"downsample.conv.conv.conv.weight": (512, 512, 4), "upsample.convtr.convtr.convtr.weight": (512, 1, 4)}
    for part, levels in (("quantizer.rvq_first", 1), ("quantizer.rvq_rest", 31)):
        shapes |= {f"{part}.input_proj.weight": (256, 512, 1), f"{part}.output_proj.weight": (512, 256, 1)}
        for level in [f"{part}.vq.layers.{n}._codebook" for n in range(levels)]:
            shapes |= {f"{level}._initialized": (1,), f"{level}.cluster_usage": (2048,)}
            shapes[f"{level}.embedding_sum"] = (2048, 256)
    return shapes


def test_full_size_from_transformers_through_moshis_layout(tmp_path):
    model = random_mimi(noise(2, 12 * 1920, seed=2))
    model.save_pretrained(tmp_path)
    codec, config = import_mimi(tmp_path)
    assert sum(p.numel() for p in codec.parameters()) == 79_308_609
    assert config["codec"] == MimiSizes().config()
    assert_parity(codec, model, noise(1, 12 * 1920, seed=4))

    file, beside = export_mimi(codec, tmp_path / "moshi", "moshi")
    with safe_open(file, "pt") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    assert shapes == moshi_file()
    assert sum(math.prod(shape) for shape in shapes.values()) == 96_151_393
    beside.unlink()  # Kyutai's file stands alone
    back, same = import_mimi(file)
    assert_same_state(back, codec)
    assert same == config


def test_moshis_newer_names_and_missing_configuration(codec, tmp_path):
    file, beside = export_mimi(codec, tmp_path, "moshi")
    newer = {
        name.replace("in_proj_weight", "in_projs.0.weight").replace("out_proj.weight", "out_projs.0.weight"): value
        for name, value in load_file(file).items()
    }
    save_file(newer, file)
    assert_same_state(import_mimi(file)[0], codec)
    beside.unlink()
    refused(file, "how many attention heads")


def test_fewer_codebooks(small):
    model, folder = small
    codec, _ = import_mimi(folder, n_q=3)
    wav = noise(1, 20 * HOP, seed=6)
    with torch.no_grad():
        codes = model.encode(wav, num_quantizers=3).audio_codes
        assert_codes_equal(codec.encode(wav), codes, codec, codec.latents(wav))
        torch.testing.assert_close(codec.decode(codes), model.decode(codes).audio_values, atol=1e-4, rtol=1e-5)
    for n_q in (1, 7):
        refused(folder, "choose 2 to 6", n_q=n_q)


def test_a_codec_trained_here_is_read_by_transformers(config, tmp_path):
    torch.manual_seed(1)
    for side in ("encoder", "decoder"):
        config[side]["seanet"]["weight_norm"] = True
    codec = build(config).train()
    optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-5)
    for step in range(7):  # with one search for dead codes
        wav = noise(4, 20 * HOP, seed=100 + step)
        out = codec(wav)
        optimizer.zero_grad()
        ((out.wav - wav).square().mean() + out.quantized.loss).backward()
        optimizer.step()
    export_mimi(codec.eval(), tmp_path, "transformers")
    theirs = from_pretrained(tmp_path)
    wav = noise(2, 40 * HOP, seed=8)
    with torch.no_grad():
        latents, codes = codec.latents(wav), codec.encode(wav)
        assert_codes_equal(codes, theirs.encode(wav).audio_codes, codec, latents)
        assert len(codes[:, 0].unique()) > 4
        torch.testing.assert_close(codec.decode(codes), theirs.decode(codes).audio_values, atol=1e-4, rtol=1e-5)
    ours, other = codec.quantizer, theirs.quantizer
    pairs = [(ours.semantic, other.semantic_residual_vector_quantizer)]
    pairs += [(ours.acoustic, other.acoustic_residual_vector_quantizer)]
    for part, part_of_theirs in pairs:
        books = torch.stack([layer.codebook.embed for layer in part_of_theirs.layers])
        assert torch.equal(books, part.codebooks)


def test_sums_give_the_codebooks_to_the_last_bit():
    torch.manual_seed(0)
    usage = torch.tensor([[3.7, 0.0, 1e-7, 2e-5, 123.4, 0.3]])
    codebooks = torch.randn(1, 6, 16)
    good = codebooks * usage[..., None]
    codebooks[0, 0] = good[0, 0] / 3.7
    got_usage, got_sums = exact_sums(codebooks, usage, good)
    assert torch.equal(got_sums / got_usage.clamp(min=1e-5)[..., None], codebooks)
    assert got_usage[0, 0] == usage[0, 0]
    assert torch.equal(got_sums[0, 0], good[0, 0])
    assert ((got_usage[0, 1:4] > 9e-4) & (got_usage[0, 1:4] < 2e-3)).all()  # dead for everyone, and far from the clamp


# Refusals, each in one sentence


def refused(source, match, **options):
    with pytest.raises(CheckpointError, match=match) as error:
        import_mimi(source, **options)
    assert "\n" not in str(error.value)


def edited(small, folder, config=None, tensors=None):
    """A copy of the small model with another configuration or other tensors."""
    fields = json.loads((small[1] / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(fields))
    state = load_file(small[1] / "model.safetensors") | (tensors or {})
    save_file({name: v for name, v in state.items() if v is not None}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("use_conv_shortcut", True), ("num_residual_layers", 2), ("use_causal_conv", False), ("normalize", True)],
        *[("trim_right_ratio", 0.5), ("pad_mode", "reflect"), ("num_semantic_quantizers", 2), ("attention_bias", True)],
        *[("num_key_value_heads", 1), ("head_dim", 32), ("hidden_act", "relu"), ("norm_eps", 1e-6)],
        *[("audio_channels", 2), ("upsample_groups", 1), ("codebook_dim", 8), ("encoder_config", None)],
        *[("frame_rate", 12.4), ("frame_rate", 1e-320), ("upsampling_ratios", "4322")],
        *[("upsampling_ratios", [2] * 5000), ("num_quantizers", 2**63), ("num_hidden_layers", 2**20)],
        *[("hidden_size", None), ("rope_parameters", {"rope_theta": 1e300}), ("rope_parameters", [1])],
        *[
            ("rope_parameters", {"rope_theta": "10000"}),
            ("rope_parameters", {"rope_type": "linear", "rope_theta": 1e4}),
        ],
    ],
)
def test_fields_that_cannot_be_expressed_are_named(small, tmp_path, field, value):
    refused(edited(small, tmp_path, {field: value}), field.removesuffix("parameters"))


def test_sizes_that_cannot_be_built(small, tmp_path):
    heads = {"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 6}
    refused(edited(small, tmp_path, heads), "cannot be built: 5 heads do not divide")


def test_tensors_that_do_not_fit_are_named(small, codec, tmp_path):
    q, bias = "encoder_transformer.layers.1.self_attn.q_proj.weight", "decoder.layers.14.conv.bias"
    folder = edited(small, tmp_path, tensors={q: None, "surplus": torch.zeros(1), bias: torch.zeros(2)})
    refused(folder, rf"1 missing \({q}\); 1 unknown \(surplus\); 1 wrongly shaped \({bias} \[2\] instead of \[1\]\)")
    refused(edited(small, tmp_path, {"num_quantizers": 7}), "3 missing .*layers.5.codebook.cluster_usage")
    refused(edited(small, tmp_path, {"num_hidden_layers": 1}), r"24 unknown \(decoder_transformer.layers.1.*, \.\.\.\)")

    file, beside = export_mimi(codec, tmp_path / "moshi", "moshi")
    state = load_file(file)
    conv, rest = "encoder.model.3.conv.conv.weight", "quantizer.rvq_rest.vq.layers.2._codebook.embedding_sum"
    deep = "encoder_transformer.transformer.layers.{}.norm1.weight"
    for tensors, match in (
        ({conv: None}, f"{conv} is missing"),
        ({rest: None}, rf"1 missing \({rest}\)"),
        ({conv: torch.zeros(8, 4, 5)}, rf"1 wrongly shaped \({conv} \[8, 4, 5\] instead of \[8, 4, 4\]\)"),
        ({deep.format(999_999_999): torch.zeros(1)}, "less than or equal to 1000"),
        ({deep.format(99_999_999_999): torch.zeros(1)}, r"1 unknown \(.*99999999999"),
        ({"encoder_transformer.transformer.layers.0.self_attn.in_proj_weight": torch.tensor(1.0)}, "wrongly shaped"),
    ):
        save_file({name: value for name, value in (state | tensors).items() if value is not None}, file)
        refused(file, match)
    save_file(state, file)
    beside.write_text(json.dumps({"seanet": {"true_skip": False}}))
    refused(file, "seanet.true_skip=False")


def test_sources_that_are_none(small, tmp_path):
    refused("kyutai/mimi", "neither a file nor a folder here, .*safetensors file")  # HF_HUB_OFFLINE is set
    refused("no//id", "neither a file nor a folder here")
    refused(tmp_path, "give the file itself")
    (tmp_path / "a.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    refused(tmp_path / "a.safetensors", "cannot be read as a safetensors file")
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", "is no Mimi")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "model.safetensors").write_bytes((small[1] / "model.safetensors").read_bytes())
    refused(alone / "model.safetensors", "config.json")
    (alone / "config.json").write_text("[]")
    refused(alone / "model.safetensors", "a list, not an object")
    for name in ("mimi-a.safetensors", "tokenizer-b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    refused(tmp_path, "more than one")


NOT_MIMI = {
    "decoder has no transformer": ("decoder", {"transformer": None}),
    "attention of encoder and decoder differs": ("decoder.transformer", {"context": 11}),
    r"dilations of \[1, 2\]": ("encoder.seanet.units", {"dilations": [2]}),
    "no Mimi": ("encoder.seanet.units", {"dilations": [1, 1]}),
    r"1 wrongly shaped \(decoder.seanet.layers.0.conv.weight \[64, 32, 5\] instead": ("decoder.seanet", {"kernel": 5}),
    "unknown": ("decoder.seanet", {"lstm": 1}),
}


@pytest.mark.parametrize("match", NOT_MIMI)
def test_codecs_that_are_no_mimi_are_not_exported(config, tmp_path, match):
    place, changes = NOT_MIMI[match]
    part = config
    for name in place.split("."):
        part = part[name]
    part.update(changes)
    for codec, sentence in ((build(config), match), (small_codec(), "its encoder is a SEANetEncoder")):
        with pytest.raises(CheckpointError, match=sentence) as error:
            export_mimi(codec, tmp_path / "out", "moshi")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_transformers_needs_the_last_stride(config, tmp_path):
    for side in ("encoder", "decoder"):
        config[side]["resample"] = 1
    config["quantizer"]["frame_rate"] = config["frame_rate"] = 50.0
    with pytest.raises(CheckpointError, match="resample=1"):
        export_mimi(build(config), tmp_path, "transformers")
    with pytest.raises(CheckpointError, match="valid are transformers, moshi"):
        export_mimi(build(config), tmp_path, "onnx")
