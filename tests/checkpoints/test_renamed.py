"""Options that are newer than a checkpoint: a run that is resumed keeps what it did without them."""

import importlib
import inspect

import pytest
import torch
from omegaconf import OmegaConf

from codec.checkpoints.renamed import ADDED_OPTIONS, is_older
from codec.checkpoints.safe_instantiate import CheckpointError
from codec.losses.balancer import Balancer
from codec.training.resume import older_parts
from codec.training.run import build
from tests.helpers.training import composed

BALANCER = "codec.losses.balancer.Balancer"


@pytest.mark.parametrize("target", ADDED_OPTIONS)
def test_what_a_class_does_without_a_newer_option_is_its_default(target):
    module, _, name = target.rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    assert {key: signature.parameters[key].default for key in ADDED_OPTIONS[target]} == ADDED_OPTIONS[target]


def test_newer_options_are_found_where_they_change_something():
    new, old = (
        {"loss": {"combine": {"_target_": BALANCER, "decay": 0.9, **more}}} for more in ({"reference_batch": 8}, {})
    )
    assert is_older(old, new)
    without = {"loss": {"combine": {"_target_": BALANCER, "reference_batch": None}}}
    other = {"loss": {"combine": {"_target_": "codec.losses.balancer.Weighted"}}}
    for config, saved in ((new, new), (new, without), (without, old), (old, new), (new, other), (new, {}), (new, None)):
        assert not is_older(saved, config)


def test_a_resumed_run_goes_on_with_the_parts_of_an_older_checkpoint(speech_folder, tmp_path, caplog):
    data = ["dataset=folder", f"dataset.path={speech_folder}", "dataset.holdout=0.25", "data.workers=0"]
    small = [*data, "encoder=seanet_small", "decoder=seanet_small", "channels=4", "latent_dim=16", "segment=0.52"]
    command = [*small, "loss=balancer", "disc=msd", "disc.members.msd.width=4", f"run_dir={tmp_path}"]
    task, _ = build(composed(*command), None)
    assert task.losses.combine.reference_batch == 8
    del task.config["loss"]["combine"]["reference_batch"]
    task.config["loss"]["combine"]["decay"] = 0.5
    path = tmp_path / "old.ckpt"
    content = {"state_dict": task.state_dict(), "config": task.config, "global_step": 1}
    torch.save(content, path)
    resumed, _ = build(composed(*command), str(path))
    assert isinstance(resumed.losses.combine, Balancer)
    assert (resumed.losses.combine.reference_batch, resumed.losses.combine.decay) == (None, 0.5)
    assert "old.ckpt is older" in caplog.text
    assert "reference_batch" not in resumed.config["loss"]["combine"]  # so that the next one does the same
    assert older_parts(str(path), OmegaConf.to_container(composed("loss=mel")), ["loss"]) == {}
    task.config["loss"]["terms"]["mel"] = {"_target_": "os.system", "command": "true"}
    torch.save(content, path)
    with pytest.raises(CheckpointError):
        build(composed(*command), str(path))
