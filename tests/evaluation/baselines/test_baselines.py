"""Every option of conf/baseline: composed as the command line does, built, and run."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from hydra.utils import instantiate

from codec.evaluation.baselines.base import System, reconstruct_at
from tests.helpers.signals import speechlike

CONF = Path(__file__).parents[3] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "baseline").glob("*.yaml"))


def baselines(*overrides: str) -> dict:
    """The systems of eval.py's configuration, by name; empty where there is none."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return dict(compose("eval", ["device=cpu", *overrides]).get("baseline") or {})


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_takes_clips_of_any_rate(option, small_models):
    chosen = baselines(f"baseline={option}")
    assert chosen
    for name, node in chosen.items():
        if "source" in node:
            node.source = str(small_models[node.source])
        system = instantiate(node, _convert_="all")
        assert isinstance(system, System)
        for rate in (16_000, 24_000):
            wav = torch.from_numpy(speechlike(1.0, rate, 0)).view(1, 1, -1)
            out = reconstruct_at(system, wav, rate)
            assert out.shape == wav.shape, name
            assert torch.isfinite(out).all(), name
        facts = system.facts()
        assert "kbps" in facts
        assert node.get("n_q", facts.get("n_q")) == facts.get("n_q")
        assert system.facts() == facts


def test_none_one_or_several():
    assert baselines() == {}
    assert list(baselines("baseline=opus")) == ["opus_6", "opus_8", "opus_12", "opus_16", "opus_24"]
    several = baselines("baseline=[opus,identity,low_pass,griffin_lim]")
    assert list(several) == [*baselines("baseline=opus"), "identity", "low_pass", "griffin_lim"]
    assert list(baselines("baseline=anchors")) == ["identity", "low_pass", "griffin_lim"]
    assert several == baselines("baseline=[opus,anchors]")
    assert baselines("baseline=opus", "baseline.opus_6.kbps=7")["opus_6"].kbps == 7
    assert "opus_6" not in baselines("baseline=opus", "~baseline.opus_6")


def test_an_unknown_one_lists_the_others():
    with pytest.raises(MissingConfigException, match="griffin_lim"):
        baselines("baseline=lame")


def test_names_are_unique_over_all_options():
    """Those of one option replace those of another with the same name, silently."""
    alone = [option for option in OPTIONS if option != "anchors"]
    names = [name for option in alone for name in baselines(f"baseline={option}")]
    assert len(names) == len(set(names))
    assert set(baselines(f"baseline=[{','.join(alone)}]")) == set(names)
