"""Checkpoint files: whole or not at all, the one before kept, damage found, and what a run goes on from."""

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
from codec.checkpoints import save as storage
from codec.checkpoints.load import CheckpointError, load_checkpoint
from codec.checkpoints.save import StorageError, damage, last_before, write
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


@contextmanager
def full_disk(size: int):
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def flipped(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def test_the_last_two_are_kept_and_load_with_plain_torch(tmp_path):
    for step in (1, 2, 3):
        write(content(step), tmp_path / "last.ckpt")
    write(content(9), tmp_path / "best.ckpt")
    write(content(10), tmp_path / "best.ckpt")
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    for name, step in (("last", 3), ("previous", 2), ("best", 10)):
        assert same(torch.load(tmp_path / f"{name}.ckpt", weights_only=True), content(step))
        assert storage.step_of(tmp_path / f"{name}.ckpt") == step
    assert last_before(tmp_path, 3) == tmp_path / "last.ckpt"
    assert last_before(tmp_path, 2) == tmp_path / "previous.ckpt"
    assert last_before(tmp_path, 1) is None


def test_any_flipped_bit_is_found_or_does_no_harm(tmp_path):
    """Bytes of the records, and of the last 600, where the archive's directory is."""
    path = tmp_path / "a.ckpt"
    write(content(1), path)
    whole, rng = path.read_bytes(), random.Random(0)
    records = [at for n, at in enumerate(range(len(whole) - 600)) if n % 16 == 0]
    missed = 0
    for at in [*records, *range(len(whole) - 600, len(whole), 2)]:
        flipped(path, at, rng.randrange(8))
        if not damage(path):  # padding between records, dates in the directory
            missed += 1
            assert same(torch.load(path, weights_only=True), content(1))
        path.write_bytes(whole)
    assert missed < 200
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert damage(path)


def test_a_full_disk_costs_only_the_newest(tmp_path):
    path = tmp_path / "last.ckpt"
    for step in (1, 2):
        write(content(step), path)
    size = path.stat().st_size
    for room in (0, size // 2, size - 1):
        with full_disk(room), pytest.raises(StorageError) as error:
            write(content(3), path)
        assert "could not be written" in str(error.value)
        assert "\n" not in str(error.value)
        assert {p.name: storage.step_of(p) for p in tmp_path.iterdir()} == {"last.ckpt": 2, "previous.ckpt": 1}
        assert not damage(path)
    write(content(3), path)
    assert {p.name: storage.step_of(p) for p in tmp_path.iterdir()} == {"last.ckpt": 3, "previous.ckpt": 2}


def test_a_kill_between_any_two_operations_leaves_one_to_go_on_from(tmp_path, monkeypatch):
    """Every call by which writing changes the folder, one after the other, is the last thing that happens."""

    class Killed(BaseException):
        pass

    for links in (True, False):  # file systems with hard links, and without
        for last_call in range(8):
            folder = tmp_path / f"{links}{last_call}" / "checkpoints"
            for step in (1, 2):
                write(content(step), folder / "last.ckpt")
            calls = []

            def wrapped(function, calls=calls, last_call=last_call):
                def run(*arguments):
                    if len(calls) == last_call:
                        raise Killed
                    calls.append(function)
                    return function(*arguments)

                return run

            def no_links(*_):
                raise OSError("Operation not permitted")

            with monkeypatch.context() as patch:
                for name in ("fsync", "replace", "link"):
                    patch.setattr(
                        storage.os, name, wrapped(no_links if name == "link" and not links else getattr(os, name))
                    )
                try:
                    write(content(3), folder / "last.ckpt")
                    assert last_call >= len(calls)
                except Killed:
                    pass
            found = resume_point("last", folder.parent)
            assert same(torch.load(found, weights_only=True), content(storage.step_of(found)))
            assert storage.step_of(found) >= 2
            write(content(4), folder / "last.ckpt")
            assert storage.step_of(folder / "last.ckpt") == 4
            assert storage.step_of(folder / "previous.ckpt") >= 2
            assert {p.name for p in folder.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_a_process_killed_at_any_moment_leaves_one_to_go_on_from(tmp_path):
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
        steps.append(storage.step_of(found))
        assert same(torch.load(found, weights_only=True), content(steps[-1]))
    assert steps == sorted(steps)


def write_for_ever(path: Path, step: int) -> None:
    while True:
        write(content(step := step + 1), path)


def test_a_damaged_checkpoint_never_replaces_the_one_before(tmp_path):
    for step in (1, 2):
        write(content(step), tmp_path / "last.ckpt")
    flipped(tmp_path / "last.ckpt", 2000, 3)
    assert damage(tmp_path / "last.ckpt")
    write(content(3), tmp_path / "last.ckpt")
    assert storage.step_of(tmp_path / "previous.ckpt") == 1


def test_a_run_goes_on_from_the_newest_that_is_intact(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    assert resume_point(None, tmp_path) is None
    assert resume_point("auto", tmp_path) is None
    with pytest.raises(CheckpointError, match=r"there is no checkpoint in .*checkpoints: name the folder of the run"):
        resume_point("last", tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*a.ckpt"):
        resume_point(str(folder / "a.ckpt"), tmp_path)
    for step in (1, 2):
        write(content(step), folder / "last.ckpt")
    for path in ("last", "auto", str(tmp_path), str(folder / "last.ckpt")):
        assert resume_point(path, tmp_path) == str(folder / "last.ckpt")
    assert not caplog.records
    flipped(folder / "last.ckpt", 2000, 3)
    with caplog.at_level(logging.WARNING):
        for path in ("last", "auto", str(tmp_path), str(folder / "last.ckpt")):
            assert resume_point(path, tmp_path) == str(folder / "previous.ckpt")
    for named in ("last.ckpt", "checksum", "going on from", "previous.ckpt, step 1"):
        assert named in caplog.messages[0]
    with pytest.raises(CheckpointError, match=r"is damaged: its record .*; the one before is .*previous.ckpt"):
        load_checkpoint(folder / "last.ckpt")  # what is scored is what was asked for
    shutil.copy(folder / "last.ckpt", folder / "other.ckpt")
    with pytest.raises(CheckpointError, match="choose another"):
        resume_point(str(folder / "other.ckpt"), tmp_path)
    shutil.copy(folder / "last.ckpt", folder / "previous.ckpt")
    with pytest.raises(CheckpointError, match=r"last.ckpt: its record .*; nor from .*previous.ckpt: its record"):
        resume_point("last", tmp_path)


def test_training_goes_on_while_a_disk_is_full_and_says_so_at_the_end(speech_folder, tmp_path, caplog):
    small = [*TINY, "max_steps=3", "val_every=1", "~callbacks.validation", "~callbacks.best"]
    with full_disk(100_000), pytest.raises(StorageError, match=r"last.ckpt could not be written .*File too large"):
        train.fit(short(speech_folder, tmp_path, *small))
    warnings = [record.getMessage() for record in caplog.records if record.name == "codec.checkpoints.lightning_plugin"]
    assert len(warnings) == 3  # after each validation, and at the end
    assert not list((tmp_path / "checkpoints").iterdir())
    train.fit(short(speech_folder, tmp_path, *small, "ckpt_path=auto"))
    assert storage.step_of(tmp_path / "checkpoints" / "last.ckpt") == 3


def test_other_groups_of_parameters_are_refused(tmp_path):
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
