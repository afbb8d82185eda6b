"""The dataset options of conf/ build what they name."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from codec.data.folder import FolderCorpus
from codec.data.mix import MixCorpus

CONF = Path(__file__).parents[2] / "conf"

NEEDED = {"folder": ["dataset.path=x"], "shards": ["dataset.path=x"], "hf": ["dataset.name=x"]}


def dataset(option, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(f"dataset/{option}", ["+sample_rate=16000", *overrides])
    return OmegaConf.to_container(config, resolve=True)["dataset"]


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "dataset").glob("*.yaml")))
def test_each_option_composes_at_the_codecs_rate(option):
    config = dataset(option, *NEEDED.get(option, []))
    assert config["_target_"].startswith("codec.data.")
    assert {"sample_rate", "corpora"} & set(config)


def test_a_folder_and_a_mix_are_built(folder):
    assert isinstance(instantiate(dataset("folder", f"dataset.path={folder}")), FolderCorpus)
    small = ["dataset.corpora.espeak.voices=3", "dataset.corpora.espeak.utterances=1", "dataset.weights.folder=3"]
    mix = instantiate(dataset("mix", f"dataset.corpora.folder.path={folder}", *small), _convert_="all")
    assert isinstance(mix, MixCorpus)
    assert mix.size == 13
    assert list(mix.shares) == [0.25, 0.75]


def test_voiceassistant_is_streamed():
    config = dataset("voiceassistant")
    assert config["name"] == "gpt-omni/VoiceAssistant-400K"
    assert config["streaming"]
