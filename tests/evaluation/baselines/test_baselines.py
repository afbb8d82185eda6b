"""conf/baseline: every option composes, builds and reconstructs clips of any rate."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException
from hydra.utils import instantiate

from codec.evaluation.baselines.base import System, reconstruct_at
from tests.helpers.lyra_files import random_lyra
from tests.helpers.signals import speechlike

CONF = Path(__file__).parents[3] / "conf"
OPTIONS = sorted(path.stem for path in (CONF / "baseline").glob("*.yaml"))


@pytest.fixture(scope="module")
def compose_baselines():
    """Overrides of eval.py -> its systems by name."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: dict(compose("eval", ["device=cpu", *overrides]).get("baseline") or {})


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in ("identity", "low_pass")])
def test_each_option_takes_clips_of_any_rate(option, compose_baselines, small_models, tmp_path, monkeypatch):
    monkeypatch.delenv("CODEC_LYRA", raising=False)
    lyra = tmp_path
    if option == "lyra":
        random_lyra(lyra)
    chosen = compose_baselines(f"baseline={option}")
    assert chosen
    for name, node in chosen.items():
        if "source" in node:
            node.source = str(small_models.get(node.source, lyra))
        system = instantiate(node, _convert_="all")
        assert isinstance(system, System)
        for rate in (16_000, 24_000):
            wav = torch.from_numpy(speechlike(0.3, rate, 0)).view(1, 1, -1)
            out = reconstruct_at(system, wav, rate)
            assert out.shape == wav.shape, name
            assert torch.isfinite(out).all(), name
        facts = system.facts()
        assert "kbps" in facts
        assert node.get("n_q", facts.get("n_q")) == facts.get("n_q")
        assert system.facts() == facts


def test_options_combine_and_have_unique_names(compose_baselines):
    """Systems of the same name in two options would replace each other without a warning."""
    assert compose_baselines() == {}
    alone = [option for option in OPTIONS if option != "anchors"]
    names = [name for option in alone for name in compose_baselines(f"baseline={option}")]
    assert len(names) == len(set(names))
    assert set(compose_baselines(f"baseline=[{','.join(alone)}]")) == set(names)
    changed = compose_baselines("baseline=[opus,anchors]", "baseline.opus_6.kbps=7", "~baseline.opus_8")
    assert list(changed) == ["opus_6", "opus_12", "opus_16", "opus_24", "identity", "low_pass", "griffin_lim"]
    assert changed["opus_6"].kbps == 7
    with pytest.raises(MissingConfigException, match="griffin_lim"):
        compose_baselines("baseline=lame")
