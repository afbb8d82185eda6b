import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from codec.checkpoints.load import CheckpointError, load_checkpoint, load_codec
from codec.checkpoints.safe_instantiate import STEP, build, check_targets
from tests.helpers.checkpoints import CONFIG, SEANET, saved
from tests.helpers.parts import small_codec


def test_a_moved_checkpoint_gives_the_same_codec(tmp_path):
    codec = saved(tmp_path / "a.ckpt")
    (tmp_path / "elsewhere").mkdir()
    loaded, config = load_codec((tmp_path / "a.ckpt").rename(tmp_path / "elsewhere" / "b.ckpt"))
    wav = torch.randn(1, 1, 100)
    assert torch.equal(loaded(wav).wav, codec(wav).wav)
    assert config["step"] == 7
    assert not loaded.training


def test_averaged_weights_are_taken_on_request(tmp_path):
    average = {name: torch.zeros_like(p) for name, p in small_codec().named_parameters()}
    codec = saved(tmp_path / "a.ckpt", ema=average)
    assert all(not p.any() for p in load_codec(tmp_path / "a.ckpt")[0].parameters())
    raw = load_codec(tmp_path / "a.ckpt", ema=False)[0]
    assert all(torch.equal(a, b) for a, b in zip(raw.parameters(), codec.parameters(), strict=True))


def test_another_shape_is_named(tmp_path):
    saved(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    state["codec.encoder.layers.0.conv.bias"] = torch.zeros(5)
    state["codec.surplus"] = torch.zeros(1)
    del state["codec.decoder.layers.0.conv.bias"]
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError) as error:
        load_codec(tmp_path / "a.ckpt")
    message = str(error.value)
    assert "1 missing (decoder.layers.0.conv.bias)" in message
    assert "1 unknown (surplus)" in message
    assert "encoder.layers.0.conv.bias [5] instead of [4]" in message
    assert "\n" not in message


def test_damaged_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    saved(path)
    whole = path.read_bytes()
    for content in (b"", b"not a checkpoint", pickle.dumps({"config": {}}), whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "b.ckpt")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_a_checkpoint_does_not_run(tmp_path):
    torch.save({"config": CONFIG, "state_dict": {}, "extra": Payload(tmp_path / "owned")}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "owned").exists()


def test_loading_a_codec_imports_nothing_for_training_or_evaluation():
    program = (
        "import sys; from codec.checkpoints.load import load_codec; load_codec(sys.argv[1]); "
        "print(*{'lightning', 'hydra', 'omegaconf', 'matplotlib', 'pandas', 'datasets', 'transformers', 'torchaudio', "
        "'wandb', 'huggingface_hub', 'scipy', 'sklearn', 'pydantic'} & sys.modules.keys())"
    )
    ckpt = Path(__file__).parent / "before_move" / "codec.ckpt"
    done = subprocess.run([sys.executable, "-c", program, ckpt], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_classes_are_found_under_old_names_and_removed_options_are_ignored(monkeypatch):
    monkeypatch.setattr(
        "codec.checkpoints.renamed.CLASSES", {"codec.old.SEANet": "codec.encoders.seanet.SEANetEncoder"}
    )
    assert type(build({"_target_": "codec.old.SEANet", **SEANET})).__name__ == "SEANetEncoder"
    teacher = {"_target_": "codec.teachers.random.RandomTeacher", "width": 16, "blocks": 1}
    rates = {"dim": 8, "sample_rate": 16_000, "frame_rate": 50.0}
    distill = {"_target_": "codec.distillation.Distillation", "teacher": teacher, "cache": "a/folder", **rates}
    assert build(distill, STEP).teacher.dim == 16
    with pytest.raises(CheckpointError, match="would write to"):
        check_targets({"_target_": "codec.data.folder.FolderCorpus", "cache": "a/folder"})
