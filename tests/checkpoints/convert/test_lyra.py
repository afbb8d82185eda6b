"""Lyra V2: import of its files, and parity with its interpreter where CODEC_LYRA names the released files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from codec.checkpoints.convert.lyra import FILES, import_lyra
from codec.checkpoints.convert.published import import_published
from codec.checkpoints.convert.tflite import CONV
from codec.checkpoints.load import CheckpointError
from codec.decoders.lyra import LyraDecoder
from codec.encoders.lyra import LyraEncoder
from tests.helpers.lyra_files import random_lyra, tflite
from tests.helpers.parts import changed_outputs, count, streamed
from tests.helpers.signals import speech

RELEASED = os.environ.get("CODEC_LYRA", "")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("lyra")
    return folder, random_lyra(folder)


def test_weights_are_those_of_the_files(files):
    folder, written = files
    codec, config = import_published(folder)
    state = codec.state_dict()
    for name, value in written.state_dict().items():
        if isinstance(value, torch.Tensor) and not name.startswith(("quantizer.usage", "quantizer.sums")):
            assert torch.equal(state[name], value) or torch.allclose(state[name], value, atol=1e-7), name
    assert (config["sample_rate"], codec.bitrate(), codec.bitrate(16)) == (16000, 9.2, 3.2)
    assert import_lyra(folder, 16)[0].quantizer.codebooks.shape == (16, 16, 64)


def test_other_files_are_refused(files, tmp_path):
    folder, _ = files
    for name in FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    encoder, quantizer, _ = FILES
    for name, content, word in (
        (encoder, (folder / quantizer).read_bytes(), "convolutions"),
        (quantizer, (folder / encoder).read_bytes(), "codebooks"),
        (encoder, b"RIFF" * 9, "TensorFlow"),
        (encoder, None, "cannot be read"),
        (encoder, tflite({"main": [(CONV, [None], None)] * 5000}), "entries in one list"),
        (
            encoder,
            tflite({"main": [(CONV, [None, np.ones(3, np.float32), np.ones(3, np.float32)], None)]}),
            "no weights",
        ),
    ):
        good = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content) if content else (tmp_path / name).unlink()
        with pytest.raises(CheckpointError, match=word):
            import_lyra(tmp_path)
        (tmp_path / name).write_bytes(good)
    with pytest.raises(CheckpointError, match="choose 1 to 46"):
        import_lyra(tmp_path, 47)


@torch.no_grad()
def test_causal_and_streaming():
    torch.manual_seed(0)
    sizes = dict(dim=8, channels=8, strides=[4, 2, 2], group_width=8, latent_groups=2)
    encoder, decoder = LyraEncoder(**sizes).eval(), LyraDecoder(**sizes).eval()
    wav = torch.randn(2, 1, 192)
    z = encoder(wav)
    y = decoder(z)
    assert (z.shape, y.shape) == ((2, 8, 12), wav.shape)
    assert int(changed_outputs(encoder, wav, 80).min()) == 5
    assert int(changed_outputs(decoder, z, 5).min()) == 80
    for chunks in ([1] * 12, [5, 1, 6]):
        torch.testing.assert_close(streamed(encoder, wav, chunks, 16), z, atol=1e-5, rtol=0)
        torch.testing.assert_close(streamed(decoder, z, chunks), y, atol=1e-5, rtol=0)


def test_parameters_of_the_release():
    assert (count(LyraEncoder()), count(LyraDecoder())) == (660_352, 660_289)


@pytest.mark.skipif(not RELEASED, reason="CODEC_LYRA=DIR names the released files (github.com/google/lyra)")
def test_parity_with_the_interpreter():
    """Codes of equal latents are equal; latents and sound agree to 18 dB and more: its activations are int8."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="pip install ai-edge-litert")
    encoder, quantizer, decoder = (litert.Interpreter(str(Path(RELEASED, name))) for name in FILES)
    encode, decode = encoder.get_signature_runner(), decoder.get_signature_runner()
    search, look_up = quantizer.get_signature_runner("encode"), quantizer.get_signature_runner("decode")
    wav = torch.tensor(speech(2.0))[None, None]
    latents, codes, sound = [], [], []
    for frame in wav.split(320, dim=-1):
        z = encode(input_audio=frame[0].numpy())["output_0"]
        found = search(input_frames=z, num_quantizers=np.int32(46))["output_0"]
        y = decode(input_audio=look_up(encoding_indices=found)["output_0"])["output_0"]
        latents.append(z[0, 0]), codes.append(found.reshape(46)), sound.append(y.reshape(-1))
    latents, codes = torch.tensor(np.stack(latents, 1))[None], torch.tensor(np.stack(codes, 1))[None].long()
    codec, _ = import_lyra(RELEASED)
    assert torch.equal(codec.quantizer.encode(latents), codes)
    assert snr(latents, codec.latents(wav)) > 18
    assert snr(torch.tensor(np.concatenate(sound)), codec.decode(codes)[0, 0]) > 18


def snr(reference: torch.Tensor, estimate: torch.Tensor) -> float:
    """Signal-to-noise ratio in dB."""
    return float(10 * torch.log10(reference.square().sum() / (reference - estimate).square().sum()))
