"""REPA: its loss, the blocks that it trains, and that the model itself is unchanged."""

import pytest
import torch

from codec.data.folder import FolderCorpus
from codec.distillation.teachers.random import RandomTeacher
from codec.distillation.teachers.rate import to_frame_rate
from codec.flow.repa import RepaLoss
from codec.latents.cached import cached_features
from codec.latents.features import FEATURES, PIECE, FeatureExtractor
from codec.latents.paired_features import PairedFeatures
from codec.utils.errors import InputError
from tests.helpers.checkpoints import same
from tests.helpers.codecs import recordings
from tests.helpers.flow_parts import HOP, RATE, W, small_flow
from tests.helpers.flow_training import batch, fit, one_pass, small_task

CHANNELS = 5


def repa(**options) -> RepaLoss:
    torch.manual_seed(0)
    return RepaLoss(CHANNELS, W, 2, **({"hidden": 8} | options))


def with_features() -> dict:
    return batch() | {"features": torch.randn(2, CHANNELS, 20, generator=torch.Generator().manual_seed(0)).half()}


def test_the_loss_is_0_for_parallel_and_2_for_opposite_features_and_ignores_padding():
    loss, valid = repa(), torch.arange(20) < torch.tensor([[20], [15]])
    hidden = torch.randn(2, 3 + 20, W)  # three tokens
    target = loss.projection(hidden[:, 3:]).transpose(1, 2).detach()
    assert loss(hidden, 2 * target, valid).abs() < 1e-6
    assert (loss(hidden, -target, valid) - 2).abs() < 1e-6
    elsewhere = torch.where(valid[:, None], target, torch.randn_like(target))
    assert loss(hidden, elsewhere, valid).abs() < 1e-6
    half = torch.cat([target[..., :5], -target[..., 5:]], dim=-1)
    assert (loss(hidden, half, valid) - 2 * 25 / 35).abs() < 1e-6  # the mean over 35 frames


def test_it_trains_the_blocks_up_to_its_own():
    task, given = small_task("prompt_attention", alignment=repa(layer=1)), with_features()
    first, second = task.flow.network.blocks
    with task.alignment.capture(task.flow.network) as hidden:
        one_pass(small_task(), given)  # of another model
        assert not hidden
        one_pass(task, given)
    task.alignment(hidden[0], given["features"], torch.ones(2, 20, dtype=torch.bool)).backward()
    assert all(p.grad is not None for p in [*task.alignment.parameters(), *first.parameters()])
    assert all(p.grad is None for p in [*second.parameters(), *task.flow.network.leave.parameters()])
    assert not first._forward_hooks


def test_it_is_added_in_training_alone():
    plain, task = small_task(), small_task(alignment=repa(weight=3.0))
    task.flow.load_state_dict(plain.flow.state_dict())
    without, (total, values) = one_pass(plain, batch())[0], one_pass(task, with_features())
    torch.testing.assert_close(total, without + 3 * values["alignment"])
    assert 0 < values["alignment"] < 2
    assert values["loss"] == without
    task.eval()
    assert one_pass(task, batch())[0] == without  # without features


class Features:
    def item(self, file: str, start_frame: int, frames: int) -> torch.Tensor:
        return torch.arange(CHANNELS * frames).view(CHANNELS, frames).half()


def test_it_is_no_part_of_the_model_and_is_resumed(tmp_path):
    trainer = fit(small_task(alignment=repa()), 2, tmp_path, features=Features())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in content["state_dict"]} == {"flow", "alignment"}
    assert content["ema"].keys() == dict(small_flow().named_parameters()).keys()
    groups = content["optimizer_states"][0]["param_groups"]
    assert [group["name"] for group in groups] == ["flow", "alignment"]
    task = small_task(alignment=repa())
    fit(task, 4, tmp_path, ckpt_path=tmp_path / "a.ckpt", features=Features())
    assert not same(content["state_dict"], task.state_dict())


def test_the_block_is_two_sevenths_deep_or_as_configured():
    for layers, layer in ((1, 1), (2, 1), (6, 2), (12, 3), (28, 8)):
        assert RepaLoss(CHANNELS, W, layers, hidden=4).layer == layer
    assert RepaLoss(CHANNELS, W, 6, 6, hidden=4).layer == 6
    with pytest.raises(InputError, match="blocks 1 to 6"):
        RepaLoss(CHANNELS, W, 6, 7)


def test_features_of_a_corpus_are_the_teachers_and_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path))
    source = recordings(tmp_path / "source")
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


@pytest.mark.parametrize("samples", [1, HOP + 1, int(2.5 * PIECE) * RATE + 3])
def test_recordings_of_any_length_have_a_feature_per_frame(samples):
    found = FeatureExtractor(RandomTeacher(4, 1), RATE, HOP).matrix(0.1 * torch.randn(1, 1, samples))
    assert found.shape == (4, -(-samples // HOP))
    assert found.dtype == "float16"
