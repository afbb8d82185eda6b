"""Alignment: what hidden states are drawn towards, whom that teaches, and that the model is left as it was."""

import copy

import pytest
import torch

from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.distillation.teachers.random import RandomTeacher
from codec.distillation.teachers.rate import to_frame_rate
from codec.flow.repa import Alignment
from codec.latents.cached import cached_features
from codec.latents.features import FEATURES, PIECE, FeatureExtractor
from codec.latents.paired_features import PairedFeatures
from codec.utils.errors import InputError
from tests.flow.test_datamodule import batches, data
from tests.flow.test_task import batch, fit, one_pass, small_task
from tests.helpers.checkpoints import same
from tests.helpers.codecs import recordings
from tests.helpers.flow_parts import HOP, RATE, W, small_flow
from tests.helpers.latent_corpora import Corpus

CHANNELS = 5


def alignment(**options) -> Alignment:
    torch.manual_seed(0)
    return Alignment(CHANNELS, W, 2, **({"hidden": 8} | options))


def aligned(seed: int = 0) -> dict:
    features = torch.randn(2, CHANNELS, 20, generator=torch.Generator().manual_seed(seed)).half()
    return batch(seed) | {"features": features}


def test_the_loss_is_0_for_parallel_and_2_for_opposite_inside_and_nothing_outside():
    made, inside = alignment(), torch.arange(20) < torch.tensor([[20], [15]])
    hidden = torch.randn(2, 3 + 20, W)  # three tokens
    target = made.projection(hidden[:, 3:]).transpose(1, 2).detach()
    assert made(hidden, 2 * target, inside).abs() < 1e-6
    assert (made(hidden, -target, inside) - 2).abs() < 1e-6
    elsewhere = torch.where(inside[:, None], target, torch.randn_like(target))
    assert made(hidden, elsewhere, inside).abs() < 1e-6
    half = torch.cat([target[..., :5], -target[..., 5:]], dim=-1)
    assert (made(hidden, half, inside) - 2 * 25 / 35).abs() < 1e-6  # the mean over 35 frames


def test_it_teaches_the_blocks_up_to_its_own():
    task = small_task("prompt_attention", alignment=alignment(layer=1))
    given = aligned() | {"span": torch.zeros(2, 20, dtype=torch.bool)}
    given["span"][:, 0] = True
    values = one_pass(task, given)[1]
    first, second = task.flow.network.blocks
    task.zero_grad()
    with task.alignment.listening(task.flow.network) as heard:
        one_pass(small_task(), given)  # of another model
        assert not heard
        one_pass(task, given)
    loss = task.alignment(heard[0], given["features"], torch.ones(2, 20, dtype=torch.bool))
    loss.backward()
    assert all(p.grad is not None for p in task.alignment.parameters())
    assert all(p.grad is not None for p in first.parameters())
    assert all(p.grad is None for p in [*second.parameters(), *task.flow.network.leave.parameters()])
    assert not first._forward_hooks
    assert 0 < values["alignment"] < 2


def test_it_is_added_in_training_alone():
    plain, task = small_task(), small_task(alignment=alignment(weight=3.0))
    task.flow.load_state_dict(plain.flow.state_dict())
    without, total = one_pass(plain, batch())[0], one_pass(task, aligned())
    torch.testing.assert_close(total[0], without + 3 * total[1]["alignment"])
    assert total[1]["loss"] == without
    task.eval()
    assert one_pass(task, batch())[0] == without  # and asks for no features


def test_the_model_is_without_it_and_a_run_goes_on_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.flow.test_task.data", lambda: data(features=Told()))
    trainer = fit(small_task(alignment=alignment()), 3, tmp_path, enable_checkpointing=True)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in content["state_dict"]} == {"flow", "alignment"}
    assert content["ema"].keys() == dict(small_flow().named_parameters()).keys()
    groups = content["optimizer_states"][0]["param_groups"]
    assert [group["name"] for group in groups] == ["flow", "alignment"] == small_task(alignment=alignment()).groups()
    before = copy.deepcopy(content["state_dict"])
    task = small_task(alignment=alignment())
    fit(task, 5, tmp_path, ckpt_path=tmp_path / "a.ckpt")
    assert not same(before, task.state_dict())


@pytest.mark.parametrize(("layers", "layer"), [(1, 1), (2, 1), (6, 2), (12, 3), (28, 8)])
def test_the_block_is_two_sevenths_deep_or_as_told(layers, layer):
    assert Alignment(CHANNELS, W, layers).layer == layer
    assert Alignment(CHANNELS, W, layers, layers).layer == layers
    with pytest.raises(InputError, match=f"blocks 1 to {layers}: choose one of these"):
        Alignment(CHANNELS, W, layers, layers + 1)


class Told:
    """Features of the recordings in tests/helpers/latent_corpora.py that tell the recording and the frame."""

    def item(self, file: str, start_frame: int, frames: int) -> torch.Tensor:
        number, at = torch.full((frames,), float(file[1:])), torch.arange(start_frame, start_frame + frames)
        return torch.stack([number, at, *[torch.ones(frames)] * (CHANNELS - 2)]).half()


def test_features_are_of_the_frames_that_the_latents_are_of():
    for given in batches(data(Corpus(), ("aligned_phones", "prompt"), features=Told()), 8):
        for latents, features, length in zip(given["latents"], given["features"], given["lengths"], strict=True):
            assert torch.equal(latents[0, :length], features[0, :length].float())
            assert torch.equal((100 * latents[1, :length]).round(), features[1, :length].float())
            assert not features[:, length:].any()
    assert "features" not in next(iter(data(features=Told()).val_dataloader()))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return recordings(tmp_path_factory.mktemp("features") / "source")


def test_a_corpus_has_the_features_of_each_recording(source, tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path))
    teacher, corpus = RandomTeacher(4, 1), FolderCorpus(source, RATE, holdout=0.25)
    folder = cached_features(teacher, corpus, HOP, report=lambda _: None)
    features = PairedFeatures(folder, FEATURES)
    for clip in FolderCorpus(source, RATE, holdout=1).clips("val"):
        frames = -(-clip["wav"].shape[-1] // HOP)
        wanted = to_frame_rate(teacher(clip["wav"][None], RATE), 50.0, RATE / HOP, frames)[0].t()
        assert features.frames(clip["file"]) == frames
        torch.testing.assert_close(features.item(clip["file"], 3, 20), wanted[:, 3:23].half(), atol=2e-3, rtol=0)
    assert features.frames("nobody.flac") == 0
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert cached_features(teacher, corpus, HOP) == folder
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert cached_features(RandomTeacher(4, 1, seed=1), corpus, HOP, report=lambda _: None) != folder
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CorpusError, match="remove it and begin again"):
        PairedFeatures(folder, FEATURES)


@pytest.mark.parametrize("samples", [1, HOP + 1, int(2.5 * PIECE) * RATE + 3])
def test_recordings_of_any_length_have_a_feature_for_each_frame(samples):
    found = FeatureExtractor(RandomTeacher(4, 1), RATE, HOP).matrix(0.1 * torch.randn(1, 1, samples))
    assert found.shape == (4, -(-samples // HOP))
    assert found.dtype == "float16"
