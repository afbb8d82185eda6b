"""Codecs of transformers: their own output and bitrate, and one sentence if they cannot be loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from codec.evaluation.baselines.pretrained import Pretrained, load
from codec.evaluation.metrics.base import MissingError
from tests.helpers.mimi_models import noise

RATES = {  # name -> (sample rate in Hz, frame rate in Hz, bits of a code, codebooks)
    "kyutai/mimi": (24_000, 12.5, 11, 32),
    "facebook/encodec_24khz": (24_000, 75, 10, 32),
    "descript/dac_16khz": (16_000, 50, 10, 12),
    "descript/dac_24khz": (24_000, 75, 10, 32),
}


def forward(model: torch.nn.Module, wav: torch.Tensor, n_q: int) -> torch.Tensor:
    """The model's forward pass -> ``[1, 1, T]``, or a little less than T."""
    if model.config.model_type == "mimi":
        return model(wav, num_quantizers=n_q).audio_values
    if model.config.model_type == "encodec":
        return model(wav, bandwidth=0.75 * n_q).audio_values
    return model(torch.nn.functional.pad(wav, (0, -wav.shape[-1] % 320)), n_quantizers=n_q).audio_values[:, None]


@pytest.mark.parametrize("name", RATES)
def test_output_and_facts_are_the_models_own(small_models, name):
    rate, frame_rate, bits, codebooks = RATES[name]
    wav = noise(1, rate // 4 + 77, 1)
    for n_q in (2, 8):
        system = Pretrained(small_models[name], n_q)
        assert system.sample_rate == rate
        out = system.reconstruct(wav, rate)
        with torch.no_grad():
            expected = forward(system.model, wav, n_q)[..., : wav.shape[-1]]
        assert expected.std() > 1e-4
        samples = expected.shape[-1]
        assert wav.shape[-1] - samples < 40  # DAC's strides
        assert out.shape == wav.shape
        torch.testing.assert_close(out[..., :samples], expected, atol=1e-5, rtol=1e-4)
        assert not out[..., samples:].any()
        assert system.facts() == {
            "weights": name.split("/")[1],  # and not its path
            "parameters": sum(p.numel() for p in system.model.parameters()),
            "frame_rate_hz": frame_rate,
            "n_q": n_q,
            "kbps": pytest.approx(n_q * bits * frame_rate / 1000),
        }
    assert Pretrained(small_models[name]).n_q == codebooks
    with pytest.raises(ValueError, match="not 33"):
        Pretrained(small_models[name], 33)


@pytest.mark.parametrize("source", ["nobody/no-such-codec", "no/such/folder"])
def test_missing_weights_are_one_sentence(source):
    with pytest.raises(MissingError, match=rf"^[^\n]*{source}[^\n]*$"):
        Pretrained(source, 8)


def test_incomplete_weights_are_neither_unpickled_nor_initialised_at_random(small_models, tmp_path):
    shutil.copy(small_models["descript/dac_24khz"] / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(MissingError, match=r"model\.safetensors"):
        Pretrained(tmp_path)
    weights = load_file(small_models["descript/dac_24khz"] / "model.safetensors")
    name = next(name for name in weights if name.startswith("decoder.conv1"))
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"not complete: it has no {name}"):
        Pretrained(tmp_path)


def test_other_architectures_and_bandwidths_are_refused(small_models, tmp_path):
    with pytest.raises(ValueError, match="n_q=2, 4, 8, 16, 32, not 3"):
        Pretrained(small_models["facebook/encodec_24khz"], 3)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="bert"):
        Pretrained(tmp_path)
    config = json.loads((small_models["facebook/encodec_24khz"] / "config.json").read_text())
    shutil.copytree(small_models["facebook/encodec_24khz"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(config | {"normalize": True}))
    load.cache_clear()
    with pytest.raises(ValueError, match="take facebook/encodec_24khz"):
        Pretrained(tmp_path)
