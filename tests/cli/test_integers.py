"""Whole numbers in any notation, for every option that is an integer."""

import inspect

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from codec.cli.corpus_args import CONF
from codec.cli.integers import NULL, REAL, whole_numbers
from codec.utils.errors import InputError


def composed(name, *overrides):
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        cfg = compose(name, list(overrides))
        whole_numbers(cfg, name, overrides)
    return cfg


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("train", "max_steps=2e0", 2),
        ("train", "max_steps=1e5", 100_000),
        ("train", "batch_size=16.0", 16),
        ("train", "batch_size='16'", 16),
        ("train", "seed=1E1", 10),
        ("train", "dataset.voices=2e1", 20),
        ("train", "data.workers=0.0", 0),
        ("train", "data.batch_size=8.0", 8),
        ("train", "strides=[2.0,4,5e0,8]", [2, 4, 5, 8]),
        ("train", "trainer.devices=2.0", 2),
        ("train", "quantizer.codebook_dim=8.0", 8),
        ("eval", "clips=1e1", 10),
        ("eval", "n_q=[1.0,2]", [1, 2]),
        ("eval", "workers=0.0", 0),
    ],
)
def test_a_whole_number_is_an_int(name, option, value):
    found = OmegaConf.to_container(composed(name, option))
    for part in option.partition("=")[0].split("."):
        found = found[part]
    assert found == value
    assert all(type(one) is int for one in (found if isinstance(found, list) else [found]))


def test_other_tasks_and_groups_are_composed_alike():
    cfg = composed("train", "task=flow", "flow_size=small", "max_steps=2e3", "data.val_clips=4.0", "codec_ckpt=a.ckpt")
    assert (cfg.max_steps, cfg.trainer.max_steps, cfg.data.val_clips) == (2000, 2000, 4)
    assert all(type(value) is int for value in (cfg.max_steps, cfg.trainer.max_steps, cfg.data.val_clips))
    assert composed("train", "experiment=tiny_20min", "val_every=1e2").val_every == 100


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *(
            ("train", option)
            for option in ("max_steps=2.5", "batch_size=1e-3", "seed=inf", "seed=-1", "seed=null", "lr=abc")
        ),
        *(("train", option) for option in ("strides=[2.5,4,5,8]", "dataset.voices=nan", "batch_size=true")),
        *(("eval", option) for option in ("clips=2.5", "n_q=[1,2.5]", "audio=0.5")),
    ],
)
def test_any_other_number_is_refused_by_name(name, option):
    with pytest.raises(InputError, match=option.partition("=")[0]):
        composed(name, option)


@pytest.mark.parametrize(
    "option", ["lr=1e-3", "segment=2.0", "frame_rate=12.5", "trainer.devices=auto", "data.augment.noise=[10.0,40.0]"]
)
def test_what_is_no_integer_stays(option):
    key, _, value = option.partition("=")
    assert str(OmegaConf.select(composed("train", option), key)).replace(" ", "") in (
        value,
        str(float(value)) if value[0].isdigit() else value,
    )


def test_numbers_that_are_written_as_integers_are_integers():
    """Else 0.5 would be refused where it is right."""
    for file in CONF.rglob("*.yaml"):
        parts = [OmegaConf.to_container(OmegaConf.load(file))]
        for part in parts:
            parts += [value for value in part.values() if isinstance(value, dict)]
            if "_target_" in part and not part["_target_"].startswith("$"):
                signature = inspect.signature(get_object(part["_target_"])).parameters
                for name, value in part.items():
                    if type(value) is int and name in signature and "float" in str(signature[name].annotation):
                        assert name in REAL, (file, name)
    assert not NULL & REAL
