"""Untrusted files, damaged or rewritten at random (deterministically): only the kind's own error, in one line.

    FUZZ_EXAMPLES=1000 python -m pytest tests/test_fuzz.py    # as many of each kind, for docs/results/faults.md

A file may take 2 GB of memory and 10 s.
"""

import csv
import functools
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from codec.checkpoints.safe_instantiate import DATA, CheckpointError, build, check_targets
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from tests.helpers.kinds import KINDS, RUN, LeftOut

EXAMPLES, ROOM = int(os.environ.get("FUZZ_EXAMPLES", 12)), 2 * 2**30  # of each kind; bytes
BRIEF = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=10_000, database=None, suppress_health_check=list(HealthCheck)
)
NUMBERS = st.integers() | st.floats() | st.just(10**400) | st.just(2**63)
CELLS = st.sampled_from(["../a.flac", "/a", "a@1", "x@nan", "train", "dev", "phones", "\0", "a\\b", '"', "\n"])
PLAIN = st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | CELLS
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.text(max_size=4) | st.sampled_from(["_args_", "_partial_", "cache"])


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """The bytes of a file, some replaced, cut off or inserted, most often near the beginning."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, 200) | st.integers(0, len(content))) % max(1, len(content))
        new = draw(st.binary(min_size=1, max_size=12))
        skipped = draw(st.sampled_from([0, len(new), len(content)]))  # inserted, replaced, cut off there
        content = content[:at] + (b"" if skipped == len(content) else new) + content[at + skipped :]
    return content


@st.composite
def changed(draw, content: Any) -> Any:
    """A copy of nested values, one of which is another, is missing, or is new."""
    if isinstance(content, dict) and content and draw(st.integers(0, 9)):
        key, what = draw(st.sampled_from(sorted(content))), draw(st.integers(0, 9))
        if what == 0:
            return {k: v for k, v in content.items() if k != key}
        if what == 1:
            return content | {draw(KEYS): draw(VALUES)}
        return content | {key: draw(changed(content[key]))}
    if isinstance(content, list) and content and draw(st.integers(0, 9)):
        at = draw(st.integers(0, len(content) - 1))
        return [*content[:at], draw(changed(content[at])), *content[at + 1 :]]
    return draw(VALUES)


def only(refusals: type[Exception] | tuple[type[Exception], ...], read: Callable[[], Any]) -> None:
    """``read()`` may raise these and nothing else, with a message of one line."""
    message = ""
    try:
        read()
    except refusals as error:
        message = str(error).strip()
    assert "\n" not in message
    assert len(message) < 2000


@contextmanager
def restored(folder: Path) -> Iterator[None]:
    """The files of a folder are afterwards as they were."""
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


@pytest.fixture(autouse=True, scope="module")
def _little_memory():
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Callable[[str], tuple[Path, bytes]]:
    """An intact file of a kind, and its bytes; tests write over it."""

    @functools.cache
    def make(name: str) -> tuple[Path, bytes]:
        path = KINDS[name].make(tmp_path_factory.mktemp("good"))
        return path, path.read_bytes()

    return make


SHARDS = ["unit of tokens", "unit of latents", "codes of latents", "unit of features"]
JSON = ["report.json", "ratings.json", "timing.json", "shard index", "latents index"]
SIZES = ["transformers: config.json", "moshi: mimi.json"]


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@BRIEF
def test_damaged_bytes(originals, name, data):
    path, content = originals(name)
    with restored(path.parent):
        path.write_bytes(data.draw(damaged(content)))
        only((KINDS[name].refusal, LeftOut), lambda: KINDS[name].read(path))


def parts_of(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with safe_open(path, framework="np") as file:
        return load_file(path), file.metadata()


def write_metadata(path: Path, metadata: Any) -> None:
    texts = {str(name): str(value) for name, value in metadata.items()} if isinstance(metadata, dict) else {}
    save_file(parts_of(path)[0], path, {name: text for name, text in texts.items() if text.isprintable()})


def write_about(path: Path, about: Any) -> None:
    """Into a shard file, and its new size into an index beside it."""
    save_file(parts_of(path)[0], path, {"about": json.dumps(about)})
    if "latents" in parts_of(path)[0]:
        index = json.loads((path.parent / "index.json").read_text())
        for unit in index["units"]:
            unit["bytes"] = path.stat().st_size if unit["name"] == path.stem else unit["bytes"]
        write_json(path.parent / "index.json", index)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path, new: Any) -> None:
    path.write_text(json.dumps(new))


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def write_rows(path: Path, rows: Any) -> None:
    with path.open("w", newline="") as file:
        rows = rows if isinstance(rows, list) else [rows]
        csv.writer(file).writerows(row if isinstance(row, list) else [row] for row in rows)


def in_config(part: str) -> tuple[Callable, Callable]:
    def write(path: Path, config: Any) -> None:
        state = torch.load(path, weights_only=True)["state_dict"]
        torch.save({"config": {part: config}, "state_dict": state}, path)

    return lambda path: torch.load(path, weights_only=True)["config"][part], write


# name -> how the plain values in such a file are read and written
YAML = (lambda path: yaml.safe_load(path.read_text()), lambda path, new: path.write_text(yaml.safe_dump(new)))
STRUCTURED: dict[str, tuple[Callable, Callable]] = dict.fromkeys([*JSON, *SIZES], (read_json, write_json))
STRUCTURED |= {f"run: {name}": YAML for name in RUN if name.endswith("yaml")}
STRUCTURED |= dict.fromkeys(SHARDS, (lambda path: json.loads(parts_of(path)[1]["about"]), write_about))
STRUCTURED |= dict.fromkeys(["tokens", "diverged batch"], (lambda path: parts_of(path)[1], write_metadata))
STRUCTURED |= {"manifest": (read_rows, write_rows)}
STRUCTURED |= {"checkpoint": in_config("codec"), "flow checkpoint": in_config("flow")}


@pytest.mark.parametrize("name", STRUCTURED)
@given(data=st.data())
@BRIEF
def test_other_values(originals, name, data):
    path, _ = originals(name)
    values, write = STRUCTURED[name]
    with restored(path.parent):
        write(path, data.draw(changed(values(path))))
        only((KINDS[name].refusal, LeftOut), lambda: KINDS[name].read(path))


@pytest.mark.parametrize("name", [*JSON, *SIZES])
@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**5, '{"clips": NaN}', "\ufeff{}", "", "nul"])
def test_hostile_json(originals, name, text):
    path, _ = originals(name)
    with restored(path.parent):
        path.write_text(text)
        with pytest.raises(KINDS[name].refusal):
            KINDS[name].read(path)


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


def test_a_manifest_with_an_endless_cell(tmp_path):
    (tmp_path / "manifest.csv").write_text("file\n" + "x" * 10**6)
    with pytest.raises(CorpusError, match="no CSV file"):
        FolderCorpus(tmp_path, 16_000)
