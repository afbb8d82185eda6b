"""Files from outside, damaged at random or by design: one class of error for each kind, never a crash, and quickly.

The examples are the same in every run.
"""

import csv
import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings

from codec.checkpoints.load import load_codec
from codec.checkpoints.safe_instantiate import DATA, CheckpointError, build, check_targets
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.evaluation.runs.run_folder import RunError
from codec.flow.load import load_flow, statistics_of
from codec.latents.token_file import TokenError, load_tokens
from tests.checkpoints.test_load import CONFIG
from tests.helpers.flow_checkpoints import configuration
from tests.helpers.kinds import KINDS, RUN, LeftOut

BRIEF = settings(
    max_examples=40, derandomize=True, deadline=10_000, database=None, suppress_health_check=list(HealthCheck)
)
FEW = settings(BRIEF, max_examples=25)
NUMBERS = st.integers() | st.floats() | st.just(10**400) | st.just(2**63)
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(max_size=8)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damage(draw, size: int = 4096):
    """What is done to a file's bytes: some are replaced, cut off or put in, most often near the beginning."""
    at = draw(st.integers(0, 200) | st.integers(0, size))
    return at, draw(st.sampled_from(["put", "cut", "end", "swap"])), draw(st.binary(min_size=1, max_size=12))


def damaged(content: bytes, blows: list[tuple[int, str, bytes]]) -> bytes:
    for at, kind, new in blows:
        at %= max(1, len(content))
        if kind == "put":
            content = content[:at] + new + content[at:]
        elif kind == "cut":
            content = content[:at] + content[at + len(new) :]
        elif kind == "end":
            content = content[:at]
        else:
            content = content[:at] + new + content[at + len(new) :]
    return content


@st.composite
def changed(draw, content):
    """A copy of nested values, one of which is another, is gone, or is new."""
    if isinstance(content, dict) and content and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(content)))
        what = draw(st.integers(0, 9))
        if what == 0:
            return {k: v for k, v in content.items() if k != key}
        if what == 1:
            return content | {
                draw(st.text(max_size=4) | st.sampled_from(["_args_", "_partial_", "cache"])): draw(VALUES)
            }
        return content | {key: draw(changed(content[key]))}
    if isinstance(content, list) and content and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(content) - 1))
        return [*content[:at], draw(changed(content[at])), *content[at + 1 :]]
    return draw(VALUES)


def only(kind: type[Exception] | tuple[type[Exception], ...], read):
    """``read()`` may raise this and nothing else: one sentence in one line."""
    said = ""
    try:
        read()
    except kind as error:
        said = str(error).strip()
    assert "\n" not in said, said
    assert len(said) < 2000


ALONE = [
    "tokens",
    "checkpoint",
    "flow checkpoint",
    "report.json",
    "ratings.json",
    "timing.json",
    "unit of tokens",
    "shard index",
]
ALONE += ["shard entries", "shard tar", "codes of latents", "unit of features"]
JSON = ["report.json", "ratings.json", "timing.json", "shard index", "transformers: config.json", "moshi: mimi.json"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Callable[[str], tuple[Path, bytes]]:
    """A good file of a kind, and what is in it; tests write over it."""

    @functools.cache
    def make(name: str) -> tuple[Path, bytes]:
        path = KINDS[name].make(tmp_path_factory.mktemp("good"))
        return path, path.read_bytes()

    return make


@pytest.mark.parametrize("name", ALONE)
@given(data=st.data())
@BRIEF
def test_a_damaged_file_is_refused_in_a_sentence(originals, name, data):
    path, content = originals(name)
    path.write_bytes(damaged(content, data.draw(st.lists(damage(len(content)), min_size=1, max_size=3))))
    only((KINDS[name].refusal, LeftOut), lambda: KINDS[name].read(path))


@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
@FEW
def test_json_of_another_form_is_refused_in_a_sentence(originals, name, data):
    path, content = originals(name)
    path.write_text(json.dumps(data.draw(changed(json.loads(content)))))
    only(KINDS[name].refusal, lambda: KINDS[name].read(path))


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize(
    "content", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**5, '{"clips": NaN}', "\ufeff{}", "", "nul"]
)
def test_hostile_json_is_refused_in_a_sentence(originals, name, content):
    path, _ = originals(name)
    path.write_text(content)
    with pytest.raises(KINDS[name].refusal):
        KINDS[name].read(path)


FACTS = ["length", "sample_rate", "hop_length", "version", "model", "checksum"]
TEXT = st.text(max_size=6) | st.integers().map(str) | st.just("9" * 5000)


@given(
    facts=st.fixed_dictionaries({}, optional=dict.fromkeys(FACTS, TEXT)),
    codes=st.sampled_from([(0, 0), (1, 0), (2, 6), (6,)]),
)
@FEW
def test_token_files_that_say_anything(facts, codes):
    from safetensors.numpy import save_file

    known = {
        "format": "codec-tokens",
        "version": "1",
        "model": "0",
        "length": "55",
        "sample_rate": "1",
        "hop_length": "10",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tokens")
        save_file({"codes": np.zeros(codes, np.uint16)}, path, known | facts)
        only(TokenError, lambda: load_tokens(path))


def rebuilt(original: bytes, config: dict, load: Callable[[Path], object]) -> None:
    """What is in a checkpoint's weights, under another configuration."""
    state = torch.load(io.BytesIO(original), weights_only=True)["state_dict"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.ckpt")
        torch.save({"config": config, "state_dict": state}, path)
        only(CheckpointError, lambda: load(path))


@given(config=changed(CONFIG["codec"]))
@BRIEF
def test_a_checkpoint_whose_configuration_is_another_builds_its_codec_or_is_refused(originals, config):
    rebuilt(originals("checkpoint")[1], {"codec": config}, load_codec)


@given(config=changed(configuration(("characters", "prompt"), "0" * 32, 4.0)))
@BRIEF
def test_a_flow_checkpoint_whose_configuration_is_another_builds_its_model_or_is_refused(originals, config):
    rebuilt(originals("flow checkpoint")[1], {"flow": config}, lambda path: statistics_of(load_flow(path)))


TREES = st.recursive(
    st.sampled_from(["${a}", "codec.model.Codec", "os.system", 1]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["_target_", "_args_", "a", "cache", "units"]), inner, max_size=3)
    ),
)


@given(config=VALUES | TREES)
@BRIEF
def test_configurations_are_plain_or_refused(config):
    only(CheckpointError, lambda: check_targets(config, DATA))
    if isinstance(config, dict) and "_target_" not in config:
        only(CheckpointError, lambda: build(config))


CELL = st.text(max_size=8) | st.sampled_from(
    ["../a.flac", "/a", "a@1", "x@nan", "train", "dev", "\0", "a\\b", '"', "\n"]
)


@given(
    header=st.lists(st.sampled_from(["file", "speaker", "split", "phones", "", "text"]) | CELL, max_size=4),
    rows=st.lists(st.lists(CELL, max_size=5), max_size=3),
    blows=st.lists(damage(60), max_size=2),
)
@BRIEF
def test_manifests_of_any_content(header, rows, blows):
    text = io.StringIO()
    csv.writer(text).writerows([["file", *header], *rows])
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "manifest.csv").write_bytes(damaged(text.getvalue().encode("utf-8", "replace"), blows))
        only(CorpusError, lambda: FolderCorpus(folder, 16_000))


def test_a_manifest_with_an_endless_cell_is_refused(tmp_path):
    (tmp_path / "manifest.csv").write_text("file\n" + "x" * 10**6)
    with pytest.raises(CorpusError, match="no CSV file"):
        FolderCorpus(tmp_path, 16_000)


@pytest.mark.parametrize("file", RUN)
@given(data=st.data())
@FEW
def test_run_folders_with_a_damaged_file(originals, file, data):
    path, content = originals(f"run: {file}")
    if path.suffix == ".yaml" and data.draw(st.booleans()):
        path.write_text(yaml.safe_dump(data.draw(changed(yaml.safe_load(content)))))
    else:
        path.write_bytes(damaged(content, data.draw(st.lists(damage(len(content)), min_size=1, max_size=3))))
    only(RunError, lambda: KINDS[f"run: {file}"].read(path))
