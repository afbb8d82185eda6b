"""Files from outside, damaged at random or by design: one class of error for each kind, never a crash, and quickly.

The examples are the same in every run.
"""

import csv
import io
import json
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from safetensors.numpy import save

from codec.checkpoint import load_codec
from codec.data.audio import AudioError
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.shard_index import Shard, load_entries, load_index, save_entries
from codec.data.shards import unpacked
from codec.data.store import Store
from codec.extract import read_unit
from codec.lineup import find
from codec.page.base import timings
from codec.page.ratings import read_results
from codec.report import Report, ReportError
from codec.runs import RunError, discover, names
from codec.tokens import TokenError, Tokens, load_tokens, save_tokens
from codec.untrusted import DATA, CheckpointError, build, check_targets
from tests.data.test_shards import GOOD, archive
from tests.run_folders import report, write_run
from tests.test_checkpoint import CONFIG, saved

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


def only(kind: type[Exception], read):
    """``read()`` may raise this and nothing else: one sentence in one line."""
    said = ""
    try:
        read()
    except kind as error:
        said = str(error).strip()
    assert "\n" not in said, said
    assert len(said) < 2000


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """One good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    save_tokens(folder / "tokens", Tokens(torch.arange(12).view(2, 6), 55, 16_000, 10, "00" * 16))
    saved(folder / "checkpoint")
    found = report({"stoi": 0.5, "pesq_wb": 2.0}, n_q=4, kbps=6.0, codebook_usage=[0.5], codebook_perplexity=[3.0])
    found.audio = {"a": {"reference": "audio/a.flac", "decoded": "audio/b.flac"}}
    found.failures = [{"clip": "a", "metric": "stoi", "reason": "short"}]
    found.write(folder)
    rating = {"clip": "a", "conditions": [{"system": "x", "score": 50}, {"system": "reference", "score": 100}]}
    content = {"format": "listening test 1", "listener": "me", "test": "t", "trials": [rating]}
    (folder / "ratings.json").write_text(json.dumps(content))
    (folder / "timing.json").write_text(json.dumps({"x": {"rtf_encode": 0.5, "device": "CPU"}}))
    (folder / "unit").write_bytes(save({name: np.array(v, KINDS[name]) for name, v in UNIT.items()}, {"about": TOLD}))
    (folder / "index.json").write_text(json.dumps(INDEX_OF_SHARDS))
    (folder / "entries").write_bytes(save_entries(np.array([(0, 99, 800, 800)] * 3), {}))
    (folder / "piece").write_bytes(archive(*GOOD))
    return folder


UNIT = {"codes": [[1, 2]], "ends": [1, 2], "lengths": [5, 8]}
KINDS = {"codes": np.uint16, "ends": np.int64, "lengths": np.int64}
RECORDED = [{"file": name, "speaker": "s", "text": "x", "phones": ""} for name in "ab"]
FACTS_OF_UNIT = {"format": "codec-token-shards", "version": 1, "model": "0", "sample_rate": 800, "hop_length": 8}
TOLD = json.dumps(FACTS_OF_UNIT | {"n_q": 1, "recordings": RECORDED, "unreadable": []})
SHARD = {"recordings": 3, "seconds": 3.0, "bytes": 1000, "sha256": "0" * 64, "entries": "0" * 64}
INDEX_OF_SHARDS = {"format": "codec-shards", "version": 1, "splits": {"train": [0], "val": [1], "test": [1]}}
INDEX_OF_SHARDS |= {"shards": [{"name": f"t-{i}", **SHARD} for i in range(2)]}

READERS = {
    "unit": (TokenError, lambda path: list(read_unit(path))),
    "index.json": (CorpusError, lambda path: load_index(Store(path.parent))),
    "entries": (CorpusError, lambda path: load_entries(path.read_bytes(), Shard("t", **SHARD), "entries")),
    "piece": (AudioError, lambda path: unpacked(path.read_bytes(), "t", 0)),
    "tokens": (TokenError, load_tokens),
    "checkpoint": (CheckpointError, lambda path: load_codec(path) and find(str(path))),
    "report.json": (ReportError, lambda path: use(Report.read(path))),
    "ratings.json": (ValueError, lambda path: read_results([path])),
    "timing.json": (ReportError, lambda path: timings(path.parent)),
}


def use(found: Report) -> None:
    """What every page and table does with a report."""
    found.summary()
    found.table()
    found.markdown()


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@BRIEF
def test_a_damaged_file_is_refused_in_a_sentence(originals, name, data):
    kind, read = READERS[name]
    content = (originals / name).read_bytes()
    blows = data.draw(st.lists(damage(len(content)), min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(damaged(content, blows))
        only(kind, lambda: read(path))


@pytest.mark.parametrize("name", ["report.json", "ratings.json", "timing.json", "index.json"])
@given(data=st.data())
@BRIEF
def test_json_of_another_form_is_refused_in_a_sentence(originals, name, data):
    kind, read = READERS[name]
    content = data.draw(changed(json.loads((originals / name).read_text())))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(json.dumps(content))
        only(kind, lambda: read(path))


@pytest.mark.parametrize("name", ["report.json", "ratings.json", "timing.json", "index.json"])
@pytest.mark.parametrize(
    "content", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**5, '{"clips": NaN}', "\ufeff{}", "", "nul"]
)
def test_hostile_json_is_refused_in_a_sentence(tmp_path, name, content):
    kind, read = READERS[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(kind):
        read(tmp_path / name)


@given(about=changed(json.loads(TOLD)))
@BRIEF
def test_units_that_say_anything(about):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "unit")
        tensors = {name: np.array(v, KINDS[name]) for name, v in UNIT.items()}
        path.write_bytes(save(tensors, {"about": json.dumps(about)}))
        only(TokenError, lambda: list(read_unit(path)))


FACTS = ["length", "sample_rate", "hop_length", "version", "model", "checksum"]
TEXT = st.text(max_size=6) | st.integers().map(str) | st.just("9" * 5000)


@given(
    facts=st.fixed_dictionaries({}, optional=dict.fromkeys(FACTS, TEXT)),
    codes=st.sampled_from([(0, 0), (1, 0), (2, 6), (6,)]),
)
@FEW
def test_token_files_that_say_anything(facts, codes):
    import numpy as np
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


@given(config=changed(CONFIG["codec"]))
@BRIEF
def test_a_checkpoint_whose_configuration_is_another_builds_its_codec_or_is_refused(originals, config):
    state = torch.load(originals / "checkpoint", weights_only=True)["state_dict"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.ckpt")
        torch.save({"config": {"codec": config}, "state_dict": state}, path)
        only(CheckpointError, lambda: load_codec(path))


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


FILES = [
    "config.yaml",
    ".hydra/overrides.yaml",
    ".hydra/hydra.yaml",
    ".hydra/config.yaml",
    "csv/metrics.csv",
    "train.log",
]


def look(folder: Path) -> None:
    """What a comparison does with a run."""
    runs = discover([folder])
    names(runs)
    for run in runs:
        _ = run.state, run.reason, run.seed, run.command
        run.curves()


@pytest.mark.parametrize("file", FILES)
@given(data=st.data())
@FEW
def test_run_folders_with_a_damaged_file(file, data):
    with tempfile.TemporaryDirectory() as top:
        folder = write_run(Path(top, "run"), ["lr=1", "disc=none"], {"disc": "none"}, {"a": {"b": [1, 2]}})
        path = folder / file
        content = path.read_bytes()
        if path.suffix == ".yaml" and data.draw(st.booleans()):
            path.write_text(yaml.safe_dump(data.draw(changed(yaml.safe_load(content)))))
        else:
            path.write_bytes(damaged(content, data.draw(st.lists(damage(len(content)), min_size=1, max_size=3))))
        only(RunError, lambda: look(folder))
