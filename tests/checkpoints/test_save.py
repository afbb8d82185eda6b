"""Checkpoint files: atomic, the previous one kept, damage found, and the choice of the one to resume from."""

import logging
import multiprocessing
import os
import random
import resource
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import train
from codec.checkpoints.load import CheckpointError, load_checkpoint
from codec.checkpoints.save import StorageError, damage, last_before, step_of, write
from codec.training.resume import check_fits, resume_point
from tests.helpers.checkpoints import same
from tests.helpers.training import TINY, short, small_task

CONTENT = {
    "state_dict": {"a": torch.arange(600.0)},
    "config": {"codec": {}},
    "note": "plain",
    "ranks": [(1, 2.5, None)],
}


def content(step: int) -> dict:
    return CONTENT | {"global_step": step}


def written(path: Path, *steps: int) -> Path:
    for step in steps:
        write(content(step), path)
    return path


def steps_in(folder: Path) -> dict[str, int]:
    """The step of each file, all of which are complete checkpoints."""
    found = {path.name: step_of(path) for path in folder.iterdir()}
    assert all(same(torch.load(folder / name, weights_only=True), content(step)) for name, step in found.items())
    return found


@contextmanager
def full_disk(size: int):
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_the_last_two_are_kept_and_load_with_plain_torch(tmp_path):
    written(tmp_path / "last.ckpt", 1, 2, 3)
    written(tmp_path / "best.ckpt", 9, 10)
    assert steps_in(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 10}
    assert last_before(tmp_path, 3) == tmp_path / "last.ckpt"
    assert last_before(tmp_path, 2) == tmp_path / "previous.ckpt"
    assert last_before(tmp_path, 1) is None


def test_any_flipped_bit_is_found_or_harmless(tmp_path):
    """Bytes of the records, and of the last 600, where the archive's directory is."""
    path = written(tmp_path / "a.ckpt", 1)
    whole, rng = path.read_bytes(), random.Random(0)
    missed = 0
    for at in [*range(0, len(whole) - 600, 32), *range(len(whole) - 600, len(whole), 3)]:
        flip(path, at, rng.randrange(8))
        if not damage(path):  # padding between records, dates in the directory
            missed += 1
            assert same(torch.load(path, weights_only=True), content(1))
        path.write_bytes(whole)
    assert missed < 120
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert damage(path)


def test_a_full_disk_costs_only_the_newest(tmp_path):
    path = written(tmp_path / "last.ckpt", 1, 2)
    size = path.stat().st_size
    for room in (0, size // 2, size - 1):
        with full_disk(room), pytest.raises(StorageError, match="could not be written") as error:
            write(content(3), path)
        assert "\n" not in str(error.value)
        assert steps_in(tmp_path) == {"last.ckpt": 2, "previous.ckpt": 1}
        assert not damage(path)
    written(path, 3)
    assert steps_in(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 2}


@pytest.mark.parametrize("links", [True, False])  # file systems with hard links, and without
def test_a_kill_between_any_two_operations_leaves_one_to_resume_from(links, tmp_path, monkeypatch):
    """Each call by which writing changes the folder is, in turn, the last thing that happens."""

    class Killed(BaseException):
        pass

    def no_links(*_):
        raise OSError("Operation not permitted")

    for last_call in range(9):
        folder = tmp_path / str(last_call) / "checkpoints"
        written(folder / "last.ckpt", 1, 2)
        calls = []

        def killed_at(function, calls=calls, last_call=last_call):
            def run(*arguments):
                if len(calls) == last_call:
                    raise Killed
                calls.append(function)
                return function(*arguments)

            return run

        with monkeypatch.context() as patch:
            for name in ("fsync", "replace", "link"):
                patch.setattr(os, name, killed_at(no_links if name == "link" and not links else getattr(os, name)))
            try:
                write(content(3), folder / "last.ckpt")
                assert last_call >= len(calls)
            except Killed:
                pass
        found = resume_point("last", folder.parent)
        assert same(torch.load(found, weights_only=True), content(step_of(found)))
        assert step_of(found) >= 2
        written(folder / "last.ckpt", 4)
        steps = steps_in(folder)
        assert steps.keys() == {"last.ckpt", "previous.ckpt"}
        assert steps["last.ckpt"] == 4
        assert steps["previous.ckpt"] >= 2


def write_for_ever(path: Path, step: int) -> None:
    while True:
        write(content(step := step + 1), path)


def test_a_process_killed_at_any_moment_leaves_one_to_resume_from(tmp_path):
    """A real process that does nothing but write, until SIGKILL."""
    path, rng, steps = tmp_path / "checkpoints" / "last.ckpt", random.Random(1), [0]
    while len(steps) <= 12 or steps[-1] <= 6:  # on a busy machine it takes longer to get anywhere
        writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(path, steps[-1]), daemon=True)
        writer.start()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        writer.kill()
        writer.join()
        found = resume_point("last", tmp_path)
        steps.append(step_of(found))
        assert same(torch.load(found, weights_only=True), content(steps[-1]))
    assert steps == sorted(steps)


def test_a_damaged_checkpoint_never_replaces_the_previous_one(tmp_path):
    path = written(tmp_path / "last.ckpt", 1, 2)
    flip(path, 2000, 3)
    assert damage(path)
    written(path, 3)
    assert steps_in(tmp_path) == {"last.ckpt": 3, "previous.ckpt": 1}


def test_a_run_resumes_from_the_newest_intact_one(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    assert resume_point(None, tmp_path) is resume_point("auto", tmp_path) is None
    for source in ("last", str(folder / "a.ckpt")):
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            resume_point(source, tmp_path)
    written(last, 1, 2)
    sources = ("last", "auto", str(tmp_path), str(last))
    assert {resume_point(source, tmp_path) for source in sources} == {str(last)}
    assert not caplog.records
    flip(last, 2000, 3)
    with caplog.at_level(logging.WARNING):
        assert {resume_point(source, tmp_path) for source in sources} == {str(previous)}
    assert all(word in caplog.messages[0] for word in ("last.ckpt", "checksum", "previous.ckpt", "step 1"))
    with pytest.raises(CheckpointError, match=r"is damaged: its record .*previous.ckpt"):
        load_checkpoint(last)  # an evaluation takes no other checkpoint than the requested one
    shutil.copy(last, folder / "other.ckpt")
    with pytest.raises(CheckpointError, match="choose another"):
        resume_point(str(folder / "other.ckpt"), tmp_path)
    shutil.copy(last, previous)
    with pytest.raises(CheckpointError, match=r"last.ckpt: its record .*previous.ckpt: its record"):
        resume_point("last", tmp_path)


def test_training_continues_while_a_disk_is_full_and_fails_at_the_end(speech_folder, tmp_path, caplog):
    small = [*TINY, "max_steps=3", "val_every=1", "~callbacks.validation", "~callbacks.best"]
    with full_disk(100_000), pytest.raises(StorageError, match=r"last.ckpt could not be written .*File too large"):
        train.fit(short(speech_folder, tmp_path, *small))
    warnings = [record.getMessage() for record in caplog.records if record.name == "codec.checkpoints.lightning_plugin"]
    assert len(warnings) == 3  # after each validation, and at the end
    assert not list((tmp_path / "checkpoints").iterdir())
    train.fit(short(speech_folder, tmp_path, *small, "ckpt_path=auto"))
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 3


def test_other_parameter_groups_are_refused(tmp_path):
    task = small_task()
    names = task.groups()
    assert names == ["codec", "disc"]
    for found in (names, [*names, "codec/transformers"]):
        groups = [{"name": name, "params": []} for name in found]
        state = {"state_dict": task.state_dict(), "config": {}, "optimizer_states": [{"param_groups": groups}]}
        torch.save(state, tmp_path / "a.ckpt")
        if found == names:
            check_fits(task, str(tmp_path / "a.ckpt"))
        else:
            with pytest.raises(CheckpointError, match="disc, codec/transformers, this one codec, disc"):
                check_fits(task, str(tmp_path / "a.ckpt"))
