"""python -m codec import, export, encode and decode."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import MimiModel

from codec.__main__ import main
from codec.checkpoints.convert.mimi import import_mimi
from codec.checkpoints.load import load_checkpoint, load_codec
from codec.checkpoints.safe_instantiate import check_targets
from codec.latents.audio_files import read_blocks
from codec.latents.token_file import load_tokens
from tests.helpers.checkpoints import saved
from tests.helpers.codes import assert_codes_equal
from tests.helpers.commands import fails
from tests.helpers.mimi_models import HOP, SMALL, noise, random_mimi
from tests.helpers.signals import speechlike

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """The folder of a small Mimi of transformers."""
    folder = tmp_path_factory.mktemp("theirs")
    random_mimi(noise(4, 60 * HOP, seed=1), **SMALL).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_import_writes_a_checkpoint(theirs, here, capsys):
    main(["import", str(theirs)])
    printed = capsys.readouterr().out
    parameters = f"{MimiModel.from_pretrained(theirs).num_parameters():,} parameters"
    assert f"mimi.ckpt: {parameters}, 6 codebooks of 32, 2400 Hz at 25 frames per second\n" in printed
    codec, config = load_codec("mimi.ckpt")
    check_targets(config)
    assert config["step"] == 0
    assert config["name"] == "mimi"
    assert codec.quantizer.acoustic.steps > 0  # initialised, whatever trains it next
    wanted, _ = import_mimi(theirs)
    wav = noise(1, 20 * HOP, seed=2)
    with torch.no_grad():
        assert torch.equal(codec(wav).wav, wanted(wav).wav)


def test_there_and_back(theirs, here, capsys):
    main(["import", str(theirs), "-o", "deep/down/a.ckpt", "--n-q", "4"])
    for target, files in (("transformers", 3), ("moshi", 2)):
        main(["export", target, "--to", target, "--ckpt", "deep/down/a.ckpt"])
        assert len(list(Path(target).iterdir())) == files
        main(["import", target, "-o", f"{target}.ckpt"])
        first, second = (load_checkpoint(f)["state_dict"] for f in ("deep/down/a.ckpt", f"{target}.ckpt"))
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
    assert "4 codebooks of 32" in capsys.readouterr().out
    assert MimiModel.from_pretrained("transformers").config.num_quantizers == 4


def test_averaged_or_raw_weights(theirs, here):
    main(["import", str(theirs), "-o", "a.ckpt"])
    checkpoint = load_checkpoint("a.ckpt")
    name = "decoder.seanet.layers.14.conv.bias"
    checkpoint["ema"] = {name: torch.full((1,), 0.25)}
    torch.save(checkpoint, "a.ckpt")
    main(["export", "average", "--to", "transformers", "--ckpt", "a.ckpt"])
    main(["export", "last", "--to", "transformers", "--ckpt", "a.ckpt", "--raw"])
    fails(["export", "last", "--to", "transformers", "--ckpt", "a.ckpt"], "exists already", "--force")
    main(["export", "last", "--to", "transformers", "--ckpt", "a.ckpt", "--raw", "--force"])
    bias = {folder: import_mimi(folder)[0].state_dict()[name] for folder in ("average", "last")}
    assert bias["average"] == 0.25
    assert bias["last"] == checkpoint["state_dict"][f"codec.{name}"]


def test_what_is_no_mimi(theirs, here):
    fails(["import", "kyutai/mimi"], "kyutai/mimi is neither a file nor a folder here")
    fails(["import", theirs, "--n-q", 99], "choose 2 to 6")
    saved(here / "soundstream.ckpt")
    fails(["export", "out", "--to", "transformers", "--ckpt", "soundstream.ckpt"], "no Mimi")
    assert not Path("mimi.ckpt").exists()
    assert not Path("out").exists()


@pytest.fixture(scope="module")
def imported(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("imported") / "mimi.ckpt"
    main(["import", str(theirs), "-o", str(path)])
    return path


def test_encode_and_decode(imported, here, capsys):
    """A recording at another rate, with fewer codebooks, there and back."""
    soundfile.write("in.flac", speechlike(3.0, 8000, 0), 8000)
    main(["encode", "in.flac", "out/in.codes", "--ckpt", str(imported), "--n-q", "3", "--device", "cpu"])
    assert "in.flac -> out/in.codes: 3.00 s, 75 frames of 3 codes\n" in capsys.readouterr().out
    tokens = load_tokens("out/in.codes")
    assert (tuple(tokens.codes.shape), tokens.length, tokens.sample_rate) == ((3, 75), 7200, 2400)
    codec, _ = load_codec(imported)
    wav = np.concatenate(list(read_blocks("in.flac", 2400)))
    with torch.no_grad():
        wav = torch.from_numpy(wav)[None, None]
        assert_codes_equal(tokens.codes[None], codec.encode(wav, 3), codec, codec.latents(wav))
    main(["decode", "out/in.codes", "again.wav", "--ckpt", str(imported)])
    heard, rate = soundfile.read("again.wav")
    assert (rate, len(heard)) == (2400, 7200)
    main(["decode", "out/in.codes", "again.wav", "--ckpt", str(imported), "--n-q", "1", "--force"])


def test_choices_that_do_not_fit(imported, here):
    soundfile.write("in.wav", speechlike(1.0, 2400, 0), 2400)
    ckpt = ["--ckpt", imported]
    fails(["encode", "in.wav", "a.codes", *ckpt, "--n-q", "7"], "has 6 codebooks: choose 1 to 6")
    fails(["encode", "in.wav", "in.wav/a.codes", *ckpt], "in.wav")
    main(["encode", "in.wav", "a.codes", "--ckpt", str(imported)])
    fails(["decode", "a.codes", "a.wav", *ckpt, "--n-q", "7"], "has 6 codebooks")
    fails(["decode", "a.codes", "a.xyz", *ckpt], "a.xyz: cannot be written")
    assert not Path("a.wav").exists()


def test_export_to_onnx(imported, here, monkeypatch):
    """The files themselves are tested in tests/checkpoints/convert/test_onnx.py."""
    seen = []
    monkeypatch.setattr(
        "codec.checkpoints.convert.onnx.export_onnx",
        lambda codec, folder: seen.append(folder) or [folder / "codec.json"],
    )
    main(["export", "out", "--to", "onnx", "--ckpt", str(imported)])
    assert seen == [Path("out")]
