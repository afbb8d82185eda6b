"""The exported steps give what PyTorch gives, over a whole stream."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from codec.checkpoints.convert.onnx import export_onnx
from codec.checkpoints.load import CheckpointError
from codec.decoders.istft import ISTFTDecoder
from codec.encoders.stft import STFTEncoder
from codec.model import Codec
from codec.quantizers.rvq import RVQ
from tests.helpers.codes import assert_codes_equal
from tests.helpers.parts import small_mimi

KINDS = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_quiet")]


@pytest.fixture
def _quiet(caplog):
    caplog.set_level("ERROR")


class Stream:
    """Runs an exported step again and again, from a state of zeros, by the names of its inputs and outputs."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        first, *state = self.session.get_inputs()
        self.name, self.state = first.name, {i.name: np.zeros(i.shape, KINDS[i.type]) for i in state}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        names = [o.name for o in self.session.get_outputs()]
        y, *state = self.session.run(names, {self.name: x.numpy(), **self.state})
        self.state = dict(zip([name.removeprefix("next_") for name in names[1:]], state, strict=True))
        return torch.from_numpy(y)


def test_exported_steps_equal_pytorch(tmp_path):
    """Mimi, trained with weight norm, over two windows of its transformers, with fewer codebooks than it has."""
    codec, n_q = small_mimi(layers=1), 3
    codec.quantizer.train()(codec.latents(torch.randn(4, 1, 100 * codec.hop_length)).detach())
    codec.eval()
    encoder, decoder, facts = export_onnx(codec, tmp_path, n_q)
    facts = json.loads(facts.read_text())
    assert (facts["n_q"], facts["hop_length"]) == (n_q, codec.hop_length)
    wav = torch.randn(1, 1, 20 * codec.hop_length)
    with torch.no_grad():
        codes, latents = codec.encode(wav, n_q), codec.latents(wav)
        sound = codec.decode(codes)
    encode, decode = Stream(encoder), Stream(decoder)
    found = torch.cat([encode(frame) for frame in wav.split(codec.hop_length, -1)], -1)
    assert_codes_equal(found, codes, codec, latents)
    heard = torch.cat([decode(frame) for frame in codes.split(1, -1)], -1)
    torch.testing.assert_close(heard, sound, atol=1e-5, rtol=0)


def test_what_cannot_be_exported_is_refused(tmp_path):
    sizes = dict(dim=8, hop_length=16, channels=8, hidden=16, blocks=1, split=2, overlap=4, kernel=3)
    codec = Codec(STFTEncoder(**sizes), RVQ(8, 100, 2, 16), ISTFTDecoder(**sizes), 1600, 100)
    with pytest.raises(CheckpointError, match="STFTEncoder looks ahead"):
        export_onnx(codec, tmp_path)
    with pytest.raises(CheckpointError, match="has 4 codebooks: choose 1 to 4"):
        export_onnx(small_mimi(), tmp_path, 5)
