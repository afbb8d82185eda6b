"""Codecs of transformers: their own sound, their bitrate, and one sentence where they are not at hand."""

import json
import shutil

import pytest
import torch

from codec.evaluation.baselines.pretrained import Pretrained, load
from codec.evaluation.metrics.base import MissingError
from tests.helpers.mimi_models import noise

RATES = {  # name -> (sample rate in Hz, frame rate in Hz, bits of a code)
    "kyutai/mimi": (24_000, 12.5, 11),
    "facebook/encodec_24khz": (24_000, 75, 10),
    "descript/dac_16khz": (16_000, 50, 10),
    "descript/dac_24khz": (24_000, 75, 10),
}


def own(model: torch.nn.Module, wav: torch.Tensor, n_q: int) -> torch.Tensor:
    """The model's forward pass -> ``[1, 1, T]``, or a little less than T."""
    if model.config.model_type == "mimi":
        return model(wav, num_quantizers=n_q).audio_values
    if model.config.model_type == "encodec":
        return model(wav, bandwidth=0.75 * n_q).audio_values
    return model(torch.nn.functional.pad(wav, (0, -wav.shape[-1] % 320)), n_quantizers=n_q).audio_values[:, None]


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("n_q", [2, 8])
def test_the_sound_is_the_models_own(small_models, name, n_q):
    rate, frames, bits = RATES[name]
    system = Pretrained(small_models[name], n_q)
    assert system.sample_rate == rate
    wav = noise(1, rate // 2 + 77, 1)
    out = system.reconstruct(wav, rate)
    with torch.no_grad():
        expected = own(system.model, wav, n_q)[..., : wav.shape[-1]]
    assert out.shape == wav.shape
    assert expected.std() > 1e-4
    kept = expected.shape[-1]
    assert wav.shape[-1] - kept < 40  # samples; DAC's strides
    torch.testing.assert_close(out[..., :kept], expected, atol=1e-5, rtol=1e-4)
    assert not out[..., kept:].any()
    facts = system.facts()
    assert facts["kbps"] == pytest.approx(n_q * bits * frames / 1000)
    assert (facts["n_q"], facts["frame_rate_hz"]) == (n_q, frames)
    assert facts["weights"] == name.split("/")[1]  # and not where it lies
    assert facts["parameters"] == sum(p.numel() for p in system.model.parameters())
    assert torch.equal(system.reconstruct(wav, rate), out)


@pytest.mark.parametrize("name", RATES)
def test_codebooks_are_heard_and_counted(small_models, name):
    all_of_them = Pretrained(small_models[name])
    assert all_of_them.n_q == (12 if name == "descript/dac_16khz" else 32)
    wav = noise(1, 4800, 2)
    few = Pretrained(small_models[name], 2).reconstruct(wav, 24_000)
    assert not torch.allclose(all_of_them.reconstruct(wav, 24_000), few, atol=1e-6)
    with pytest.raises(ValueError, match=r"takes n_q=.*, not 33"):
        Pretrained(small_models[name], 33)


def test_encodec_has_only_the_bandwidths_of_its_training(small_models):
    with pytest.raises(ValueError, match="takes n_q=2, 4, 8, 16, 32, not 3"):
        Pretrained(small_models["facebook/encodec_24khz"], 3)


def test_systems_of_one_source_share_the_model(small_models):
    source = str(small_models["kyutai/mimi"])
    assert Pretrained(source, 2).model is Pretrained(source, 4).model


@pytest.mark.parametrize("source", ["nobody/no-such-codec", "no/such/folder"])
def test_missing_weights_are_one_sentence_before_the_first_clip(source):
    with pytest.raises(
        MissingError, match="its weights come from the Hugging Face Hub, once, or name a folder"
    ) as found:
        Pretrained(source, 8)
    assert source in str(found.value)
    assert "\n" not in str(found.value)


def test_a_folder_without_safetensors_is_not_unpickled(small_models, tmp_path):
    shutil.copy(small_models["descript/dac_24khz"] / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(MissingError, match=r"model\.safetensors"):
        Pretrained(tmp_path)


def test_missing_tensors_are_not_drawn_at_random(small_models, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(small_models["descript/dac_24khz"], tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if name.startswith("decoder.conv1"))
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"not complete: it has no {name}"):
        Pretrained(tmp_path)


def test_other_models_are_refused(small_models, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="a bert model, and the codecs known here are mimi, encodec, dac"):
        Pretrained(tmp_path)
    shutil.copytree(small_models["facebook/encodec_24khz"], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text()) | {"normalize": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    load.cache_clear()
    with pytest.raises(ValueError, match="take facebook/encodec_24khz"):
        Pretrained(tmp_path)
