"""Mimi of transformers -> ours -> transformers and moshi, for whole frames (codec/checkpoints/convert/mimi.py says
why)."""

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
from codec.checkpoints.convert.weight_norm import load_plain, plain_state
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


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """-> the model, and our codec with its configuration."""
    model = random_mimi(noise(2, 12 * 1920, seed=2))
    folder = tmp_path_factory.mktemp("full")
    model.save_pretrained(folder)
    return model, *import_mimi(folder)


@torch.no_grad()
def assert_parity(codec, model, wav):
    """Latents and waveforms within 1e-4, of values around 1; codes equal but for ties."""
    latents = codec.latents(wav)
    assert 0.1 < latents.std() < 100
    torch.testing.assert_close(latents, model.encoder(wav).latents, atol=1e-4, rtol=1e-5)
    codes = model.encode(wav).audio_codes
    found = codec.encode(wav)
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
    """-> the model; nothing may be missing or left over."""
    model, info = MimiModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def test_small_model_of_transformers(small):
    model, folder = small
    codec, config = import_mimi(folder)
    assert_parity(codec, model, noise(2, 40 * HOP, seed=3))  # 80 frames in the transformers, whose window is 10
    assert (config["sample_rate"], config["frame_rate"]) == (2400, 25)
    assert (codec.sample_rate, codec.frame_rate, codec.hop_length) == (2400, 25, HOP)


def test_full_size_model_of_transformers(full):
    model, codec, config = full
    assert sum(p.numel() for p in codec.parameters()) == 79_308_609
    assert_parity(codec, model, noise(1, 12 * 1920, seed=4))
    assert config["codec"] == MimiSizes().config()


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


def test_the_attention_window_and_every_part_matter(small):
    """Or the tests above would prove little."""
    model, folder = small
    codec, _ = import_mimi(folder)
    wav = noise(1, 40 * HOP, seed=3)
    with torch.no_grad():
        latents, decoded = codec.latents(wav), codec.decode(model.encode(wav).audio_codes)
        codec.encoder.transformer.context = codec.decoder.transformer.context = 20
        assert (codec.latents(wav) - latents).abs().max() > 0.1
        assert (codec.decode(model.encode(wav).audio_codes) - decoded).abs().max() > 0.1


def test_back_to_transformers(small, tmp_path):
    model, folder = small
    codec, _ = import_mimi(folder)
    export_mimi(codec, tmp_path, "transformers")
    back = from_pretrained(tmp_path)
    assert_same_state(back, model)
    assert_parity(codec, back, noise(1, 30 * HOP, seed=5))
    before, after = model.config.to_dict(), back.config.to_dict()
    for field in before.keys() - {"_frame_rate", "_name_or_path", "dtype"}:
        assert after[field] == before[field], field
    assert back.config.frame_rate == model.config.frame_rate
    assert AutoFeatureExtractor.from_pretrained(tmp_path).sampling_rate == 2400
    assert_same_state(import_mimi(tmp_path)[0], codec)


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
    shapes = {}

    def conv(name, weight, outputs):
        shapes.update({f"{name}.weight": weight, f"{name}.bias": (outputs,)})

    def unit(name, width):
        conv(f"{name}.block.1.conv.conv", (width // 2, width, 3), width // 2)
        conv(f"{name}.block.3.conv.conv", (width, width // 2, 1), width)

    conv("encoder.model.0.conv.conv", (64, 1, 7), 64)
    conv("encoder.model.14.conv.conv", (512, 1024, 3), 512)
    conv("decoder.model.0.conv.conv", (1024, 512, 7), 1024)
    conv("decoder.model.14.conv.conv", (1, 64, 3), 1)
    for stage, (width, stride) in enumerate([(64, 4), (128, 5), (256, 6), (512, 8)]):
        unit(f"encoder.model.{1 + 3 * stage}", width)
        conv(f"encoder.model.{3 + 3 * stage}.conv.conv", (2 * width, width, 2 * stride), 2 * width)
        conv(f"decoder.model.{11 - 3 * stage}.convtr.convtr", (2 * width, width, 2 * stride), width)
        unit(f"decoder.model.{12 - 3 * stage}", width)
    for side in ("encoder", "decoder"):
        for layer in range(8):
            place = f"{side}_transformer.transformer.layers.{layer}"
            shapes |= {f"{place}.norm{n}.{leaf}": (512,) for n in (1, 2) for leaf in ("weight", "bias")}
            shapes |= {f"{place}.layer_scale_{n}.scale": (512,) for n in (1, 2)}
            shapes |= {
                f"{place}.self_attn.in_proj_weight": (1536, 512),
                f"{place}.self_attn.out_proj.weight": (512, 512),
            }
            shapes |= {f"{place}.linear1.weight": (2048, 512), f"{place}.linear2.weight": (512, 2048)}
    shapes["downsample.conv.conv.conv.weight"] = (512, 512, 4)
    shapes["upsample.convtr.convtr.convtr.weight"] = (512, 1, 4)
    for part, levels in (("rvq_first", 1), ("rvq_rest", 31)):
        shapes[f"quantizer.{part}.input_proj.weight"] = (256, 512, 1)
        shapes[f"quantizer.{part}.output_proj.weight"] = (512, 256, 1)
        for level in range(levels):
            place = f"quantizer.{part}.vq.layers.{level}._codebook"
            shapes |= {f"{place}._initialized": (1,), f"{place}.cluster_usage": (2048,)}
            shapes[f"{place}.embedding_sum"] = (2048, 256)
    return shapes


def test_full_size_through_moshis_layout(full, tmp_path):
    codec = full[1]
    file, _ = export_mimi(codec, tmp_path, "moshi")
    with safe_open(file, "pt") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    assert shapes == moshi_file()
    assert sum(math.prod(shape) for shape in shapes.values()) == 96_151_393
    file.with_suffix(".json").unlink()  # Kyutai's file stands alone
    back, config = import_mimi(file)
    assert_same_state(back, codec)
    assert config["codec"] == MimiSizes().config()


def test_small_model_through_moshis_layout(small, tmp_path):
    codec, config = import_mimi(small[1])
    file, beside = export_mimi(codec, tmp_path, "moshi")
    back, same = import_mimi(tmp_path)
    assert same == config
    assert_same_state(back, codec)
    newer = {
        name.replace("in_proj_weight", "in_projs.0.weight").replace("out_proj.weight", "out_projs.0.weight"): value
        for name, value in load_file(file).items()
    }
    save_file(newer, file)
    assert_same_state(import_mimi(file)[0], codec)
    beside.unlink()
    with pytest.raises(CheckpointError, match=r"how many attention heads .* with \.json$"):
        import_mimi(file)


def test_fewer_codebooks(small):
    model, folder = small
    codec, _ = import_mimi(folder, n_q=3)
    wav = noise(1, 20 * HOP, seed=6)
    with torch.no_grad():
        codes = model.encode(wav, num_quantizers=3).audio_codes
        assert_codes_equal(codec.encode(wav), codes, codec, codec.latents(wav))
        torch.testing.assert_close(codec.decode(codes), model.decode(codes).audio_values, atol=1e-4, rtol=1e-5)
    for n_q in (1, 7):
        with pytest.raises(CheckpointError, match="has 6 codebooks: choose 2 to 6"):
            import_mimi(folder, n_q=n_q)


def with_weight_norm(config):
    """-> a codec of this configuration that is trained with weight norm."""
    for side in ("encoder", "decoder"):
        config["codec"][side]["seanet"]["weight_norm"] = True
    return build(config["codec"])


def test_into_a_codec_with_weight_norm(small):
    plain, config = import_mimi(small[1])
    codec = with_weight_norm(config)
    load_plain(codec, plain.state_dict(), "plain")
    wav = noise(1, 20 * HOP, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(codec.eval()(wav).wav, plain(wav).wav, atol=1e-4, rtol=1e-5)
    folded, wanted = plain_state(codec), plain.state_dict()
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(folded[name], value, atol=1e-6, rtol=1e-6)
    with pytest.raises(CheckpointError, match=r"1 missing \(encoder.downsample.conv.weight\)"):
        load_plain(codec, {k: v for k, v in wanted.items() if "downsample" not in k}, "plain")


def train(codec, steps, seed=0):
    """A few steps of reconstruction on noise."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(codec.train().parameters(), lr=1e-5)
    for step in range(steps):
        wav = noise(4, 20 * HOP, seed=100 + step)
        out = codec(wav)
        optimizer.zero_grad()
        ((out.wav - wav).square().mean() + out.quantized.loss).backward()
        optimizer.step()
    return codec.eval()


def test_a_codec_trained_here_is_read_by_transformers(small, tmp_path):
    torch.manual_seed(1)
    codec = with_weight_norm(import_mimi(small[1])[1])  # its configuration, not its weights
    train(codec, 7)  # with one search for dead codes
    export_mimi(codec, tmp_path, "transformers")
    wav = noise(2, 40 * HOP, seed=8)
    theirs = from_pretrained(tmp_path)
    with torch.no_grad():
        latents, codes = codec.latents(wav), codec.encode(wav)
        assert_codes_equal(codes, theirs.encode(wav).audio_codes, codec, latents)
        assert len(codes[:, 0].unique()) > 4
        torch.testing.assert_close(codec.decode(codes), theirs.decode(codes).audio_values, atol=1e-4, rtol=1e-5)
    books = [codec.quantizer.semantic.codebooks[0], *codec.quantizer.acoustic.codebooks]
    quantizer = theirs.quantizer
    layers = [
        *quantizer.semantic_residual_vector_quantizer.layers,
        *quantizer.acoustic_residual_vector_quantizer.layers,
    ]
    for book, layer in zip(books, layers, strict=True):
        assert torch.equal(layer.codebook.embed, book)


def test_training_goes_on_from_imported_codebooks(small):
    codec, _ = import_mimi(small[1])
    before = codec.quantizer.acoustic.codebooks.clone()
    train(codec, 1)
    moved = (codec.quantizer.acoustic.codebooks - before).norm() / before.norm()
    assert 0 < moved < 0.5  # k-means would put new ones in their place


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


# --- what is refused, each in one sentence


def refused(source, match, **options):
    with pytest.raises(CheckpointError, match=match) as error:
        import_mimi(source, **options)
    assert "\n" not in str(error.value)


def edited(small, folder, config=None, tensors=None):
    """A copy of the small model with another configuration or other tensors."""
    fields = json.loads((small[1] / "config.json").read_text()) | (config or {})
    (folder / "config.json").write_text(json.dumps(fields))
    state = load_file(small[1] / "model.safetensors")
    for name, value in (tensors or {}).items():
        state.pop(name, None)
        if value is not None:
            state[name] = value
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_conv_shortcut", True),
        ("num_residual_layers", 2),
        ("use_causal_conv", False),
        ("trim_right_ratio", 0.5),
        ("pad_mode", "reflect"),
        ("num_semantic_quantizers", 2),
        ("attention_bias", True),
        ("num_key_value_heads", 1),
        ("head_dim", 32),
        ("hidden_act", "relu"),
        ("norm_eps", 1e-6),
        ("audio_channels", 2),
        ("normalize", True),
        ("upsample_groups", 1),
        ("codebook_dim", 8),
        ("frame_rate", 12.4),
        ("frame_rate", 1e-320),
        ("upsampling_ratios", "4322"),
        ("upsampling_ratios", [2] * 5000),
        ("num_quantizers", 2**63),
        ("num_hidden_layers", 2**63),
        ("rope_parameters", {"rope_theta": 1e300}),
        ("hidden_size", None),
        ("rope_parameters", [1]),
        ("rope_parameters", {"rope_theta": "10000"}),
        ("rope_parameters", {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}),
        ("encoder_config", None),
    ],
)
def test_fields_that_cannot_be_expressed_are_named(small, tmp_path, field, value):
    refused(edited(small, tmp_path, {field: value}), field.removesuffix("parameters"))


def test_more_of_anything_than_a_file_holds_is_refused_before_it_is_counted(small, tmp_path):
    refused(edited(small, tmp_path, {"num_quantizers": 2**20}), "1048576 codebooks, and 1000 of each are the most")
    file, _ = export_mimi(import_mimi(small[1])[0], tmp_path / "moshi", "moshi")
    deep = {"encoder_transformer.transformer.layers.99999999999.norm1.weight": torch.zeros(1)}
    save_file(load_file(file) | deep, file)
    refused(file, "100000000000 layers")


def test_sizes_that_cannot_be_built(small, tmp_path):
    heads = {"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 6}
    refused(edited(small, tmp_path, heads), "cannot be built: 5 heads do not divide")


def test_tensors_that_do_not_fit_are_named(small, tmp_path):
    q, bias = "encoder_transformer.layers.1.self_attn.q_proj.weight", "decoder.layers.14.conv.bias"
    folder = edited(small, tmp_path, tensors={q: None, "surplus": torch.zeros(1), bias: torch.zeros(2)})
    refused(folder, rf"1 missing \({q}\); 1 unknown \(surplus\); 1 wrongly shaped \({bias} \[2\] instead of \[1\]\)")
    refused(edited(small, tmp_path, {"num_quantizers": 7}), "3 missing .*layers.5.codebook.cluster_usage")
    refused(edited(small, tmp_path, {"num_hidden_layers": 1}), r"24 unknown \(decoder_transformer.layers.1.*, \.\.\.\)")


def test_tensors_of_moshis_layout_are_named(small, tmp_path):
    file, _ = export_mimi(import_mimi(small[1])[0], tmp_path, "moshi")
    state = load_file(file)
    conv, rest = "encoder.model.3.conv.conv.weight", "quantizer.rvq_rest.vq.layers.2._codebook.embedding_sum"
    save_file({name: value for name, value in state.items() if name not in (conv, rest)}, file)
    refused(tmp_path, rf"2 missing \({conv}, {rest}\)")
    save_file(state | {conv: torch.zeros(8, 4, 5)}, file)
    refused(file, rf"1 wrongly shaped \({conv} \[8, 4, 5\] instead of \[8, 4, 4\]\)")
    beside = tmp_path / "mimi.json"
    beside.write_text(json.dumps({"seanet": {"true_skip": False}}))
    refused(file, "seanet.true_skip=False")


def test_sources_that_are_none(small, tmp_path):
    refused("kyutai/mimi", "neither a file nor a folder here, .* give a .safetensors file")  # HF_HUB_OFFLINE is set
    refused("no//id", "neither a file nor a folder here")
    refused(tmp_path, "has none: give the file itself")
    (tmp_path / "a.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    refused(tmp_path / "a.safetensors", "cannot be read as a safetensors file")
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", "is no Mimi")
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "model.safetensors").write_bytes((small[1] / "model.safetensors").read_bytes())
    refused(alone / "model.safetensors", "config.json, which tells the sizes of this Mimi, cannot be read")
    (alone / "config.json").write_text("[]")
    refused(alone / "model.safetensors", "it holds a list, not an object")
    for name in ("mimi-a.safetensors", "tokenizer-b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / name)
    refused(tmp_path, "more than one")


def small_config(small):
    return import_mimi(small[1])[1]["codec"]


@pytest.mark.parametrize("layout", ["transformers", "moshi"])
def test_codecs_that_are_no_mimi_are_not_exported(small, tmp_path, layout):
    def fails(codec, match):
        with pytest.raises(CheckpointError, match=match) as error:
            export_mimi(codec, tmp_path / "out", layout)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()

    fails(small_codec(), "no Mimi: its encoder is a SEANetEncoder")
    config = small_config(small)
    config["decoder"]["transformer"] = None
    fails(build(config), "decoder has no transformer")
    config = small_config(small)
    config["decoder"]["transformer"]["context"] = 11
    fails(build(config), "attention of encoder and decoder differs")
    config = small_config(small)
    config["encoder"]["seanet"]["units"]["dilations"] = [2]
    fails(build(config), r"dilations of \[1, 2\]")
    config = small_config(small)
    config["encoder"]["seanet"]["units"]["dilations"] = [1, 1]
    fails(build(config), "no Mimi")
    config = small_config(small)
    config["decoder"]["seanet"]["kernel"] = 5
    fails(build(config), r"1 wrongly shaped \(decoder.seanet.layers.0.conv.weight \[64, 32, 5\] instead of")
    config = small_config(small)
    config["decoder"]["seanet"]["lstm"] = 1
    fails(build(config), "unknown")


def test_transformers_needs_the_last_stride(small, tmp_path):
    config = small_config(small)
    for side in ("encoder", "decoder"):
        config[side]["resample"] = 1
    config["quantizer"]["frame_rate"] = config["frame_rate"] = 50.0
    with pytest.raises(CheckpointError, match="resample=1"):
        export_mimi(build(config), tmp_path, "transformers")
    with pytest.raises(CheckpointError, match="valid are transformers, moshi"):
        export_mimi(build(config), tmp_path, "onnx")
