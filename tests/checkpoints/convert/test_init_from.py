"""Training begins with the weights of a trained codec, whatever its form; another architecture is refused."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from codec.checkpoints.convert.init_from import start_from
from codec.checkpoints.convert.mimi import export_mimi
from codec.checkpoints.convert.weight_norm import plain_state
from codec.checkpoints.safe_instantiate import CheckpointError
from codec.decoders.seanet import SEANetDecoder
from codec.layers.conv import fold_weight_norm
from codec.layers.seanet import ResidualUnits
from codec.model import Codec
from codec.quantizers.vae import VAE
from tests.helpers.checkpoints import mimi_config, mimi_of
from tests.helpers.parts import small_mimi


def saved(codec: Codec, path, **changes):
    state = {f"codec.{name}": value for name, value in codec.state_dict().items()}
    torch.save({"state_dict": state, "config": {"codec": mimi_config(**changes)}, "global_step": 7}, path)
    return path


def assert_same(a: nn.Module, b: nn.Module) -> None:
    a, b = plain_state(a), plain_state(b)
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, b[name], atol=1e-6, rtol=1e-6, msg=name)
        else:
            assert value == b[name]


@pytest.mark.parametrize("theirs", [True, False])
@pytest.mark.parametrize("ours", [True, False])
def test_with_and_without_weight_norm(theirs, ours, tmp_path):
    trained, fresh = mimi_of(1, weight_norm=theirs), mimi_of(2, weight_norm=ours)
    start_from(fresh, saved(trained, tmp_path / "a.ckpt", weight_norm=theirs))
    assert_same(fresh, trained)
    assert fresh.quantizer.acoustic.steps == trained.quantizer.acoustic.steps > 0  # no k-means over trained codebooks
    wav = torch.randn(1, 1, 160)
    torch.testing.assert_close(fresh.eval()(wav).wav, trained.eval()(wav).wav, atol=1e-5, rtol=0)


def test_fewer_codebooks_are_the_first_ones(tmp_path):
    trained, fresh = mimi_of(1), mimi_of(2, n_q=3)
    start_from(fresh, saved(trained, tmp_path / "a.ckpt"))
    assert torch.equal(fresh.quantizer.acoustic.codebooks, trained.quantizer.acoustic.codebooks[:2])
    wav = torch.randn(1, 1, 160)
    assert torch.equal(fresh.eval().encode(wav), trained.eval().encode(wav)[:, :3])
    with pytest.raises(CheckpointError, match="wrongly shaped"):
        start_from(mimi_of(2, n_q=5), tmp_path / "a.ckpt")


@pytest.mark.parametrize("begins", ["rvq", "vae"])
def test_a_continuous_bottleneck_of_its_own_begins_with_the_codec_around_it(tmp_path, caplog, begins):
    trained, fresh = mimi_of(1), mimi_of(2)
    fresh.quantizer = VAE(8, 100, channels=3)
    ckpt = saved(trained, tmp_path / "a.ckpt")
    if begins == "vae":
        trained.quantizer = VAE(8, 100, channels=2)
        quantizer = {"_target_": "codec.quantizers.vae.VAE", "dim": 8, "frame_rate": 100, "channels": 2}
        state = {f"codec.{name}": value for name, value in trained.state_dict().items()}
        torch.save(
            {"state_dict": state, "config": {"codec": mimi_config() | {"quantizer": quantizer}}, "global_step": 7}, ckpt
        )
    own = {name: value.clone() for name, value in fresh.quantizer.state_dict().items()}
    start_from(fresh, ckpt)
    assert_same(fresh.encoder, trained.encoder)
    assert_same(fresh.decoder, trained.decoder)
    assert all(torch.equal(value, own[name]) for name, value in fresh.quantizer.state_dict().items())
    assert "quantizer: this model's starts untrained" in caplog.text


def test_from_the_files_of_others(tmp_path):
    trained = mimi_of(1)
    export_mimi(trained, tmp_path / "theirs", "moshi")
    fresh = mimi_of(2)
    start_from(fresh, tmp_path / "theirs" / "mimi.safetensors")
    wav = torch.randn(1, 1, 160)
    torch.testing.assert_close(fresh.eval()(wav).wav, trained.eval()(wav).wav, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 4}, r"encoder.transformer.heads=2, and this model encoder.transformer.heads=4"),
        ({"context": 20}, "context=10, and this model"),
        ({"base": 500.0}, "base=10000, and this model"),
        ({"sample_rate": 3200}, "sample_rate=1600, and this model sample_rate=3200"),
        ({"hidden": 32}, "wrongly shaped"),
    ],
)
def test_another_architecture_is_refused_and_nothing_is_loaded(changes, sentence, tmp_path):
    """Also where it leaves no trace in the shapes of tensors."""
    path = saved(mimi_of(1), tmp_path / "a.ckpt")
    fresh = mimi_of(2, **changes)
    before = {k: v.clone() for k, v in fresh.state_dict().items() if isinstance(v, torch.Tensor)}
    with pytest.raises(CheckpointError, match=sentence):
        start_from(fresh, path)
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items() if k in before)


def test_what_is_no_codec_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        start_from(small_mimi(), tmp_path / "no.ckpt")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="is no Mimi"):
        start_from(small_mimi(), tmp_path / "a.safetensors")


def test_a_dead_channel_stays_zero_under_weight_norm(tmp_path):
    """Its direction is 0 / 0, which would be NaN in the first forward pass."""
    trained = fold_weight_norm(mimi_of(1, weight_norm=False))
    with torch.no_grad():
        trained.encoder.seanet.layers[0].conv.weight[1] = 0.0
    fresh = mimi_of(2)
    start_from(fresh, saved(trained, tmp_path / "a.ckpt", weight_norm=False))
    wav = torch.randn(1, 1, 160)
    torch.testing.assert_close(fresh.eval()(wav).wav, trained.eval()(wav).wav, atol=1e-5, rtol=0)


def test_a_new_decoder_for_a_frozen_encoder(tmp_path, caplog):
    trained, fresh = mimi_of(1), mimi_of(2)
    fresh.decoder = SEANetDecoder(dim=8, channels=2, strides=[4, 4], units=ResidualUnits((1,), 3, 2))
    ckpt = saved(trained, tmp_path / "a.ckpt")
    untrained = {name: value.clone() for name, value in fresh.decoder.state_dict().items()}
    with pytest.raises(CheckpointError, match="decoder"):
        start_from(fresh, ckpt)
    with pytest.raises(CheckpointError, match="decoder"):
        start_from(fresh, ckpt, frozen=["decoder"])
    start_from(fresh, ckpt, frozen=["encoder", "quantizer"])
    assert "another decoder" in caplog.text
    assert_same(fresh.encoder, trained.encoder)
    assert_same(fresh.quantizer, trained.quantizer)
    for name, value in fresh.decoder.state_dict().items():
        torch.testing.assert_close(value, untrained[name], atol=1e-6, rtol=1e-6)
