"""Systems under evaluation: checkpoints of files, run folders and sweeps, numbers of codebooks, baselines."""

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch

from codec.checkpoints.load import CheckpointError
from codec.data.base import CorpusError
from codec.evaluation.systems import build_systems, corpus_of, find_checkpoints, out_folder
from tests.helpers.checkpoints import CONFIG, saved
from tests.helpers.parts import tone_batch
from tests.helpers.run_folders import write_run
from tests.helpers.speech import Rounding


@pytest.fixture
def sweep(tmp_path):
    """Two runs, of which the first has two checkpoints, and a checkpoint outside of a run."""
    saved(tmp_path / "alone.ckpt")
    for n, disc in enumerate(("msd", "mfd")):
        folder = write_run(tmp_path / "sweep" / str(n), [f"disc={disc}", "seed=3"]) / "checkpoints"
        folder.mkdir()
        for name in ("last", "best")[: 2 - n]:
            shutil.copy(tmp_path / "alone.ckpt", folder / f"{name}.ckpt")
    return tmp_path / "sweep"


def names(*paths):
    return [system.name for system in build_systems(find_checkpoints([str(path) for path in paths]))]


def test_files_runs_and_sweeps_are_found_and_have_unique_names(sweep, tmp_path):
    last = sweep / "0" / "checkpoints" / "last.ckpt"
    (alone,) = find_checkpoints(str(tmp_path / "alone.ckpt"))
    assert (alone.run, alone.step, alone.sample_rate) == (None, 7, 800)
    assert [c.path for c in find_checkpoints(str(sweep / "0"))] == [last]
    assert len(find_checkpoints([str(sweep), str(sweep / "1"), os.path.relpath(last)])) == 2
    assert find_checkpoints(None) == []
    assert names(sweep, tmp_path / "alone.ckpt") == ["disc=msd", "disc=mfd", "alone"]
    assert names(last, last.with_name("best.ckpt")) == ["0 last", "0 best"]
    other = sweep / "1" / "checkpoints" / "last.ckpt"
    assert [out_folder(find_checkpoints(str(path))) for path in (sweep, other)] == [
        sweep / "eval",
        other.with_name("eval_last"),
    ]
    assert str(out_folder(find_checkpoints(str(other)), "x")) == "x"
    shutil.copy(tmp_path / "alone.ckpt", sweep / "alone.ckpt")
    assert names(tmp_path / "alone.ckpt", sweep / "alone.ckpt") == [f"{tmp_path.name}/alone", "sweep/alone"]


def test_codebooks_and_baselines_become_systems(tmp_path):
    codec, wav = saved(tmp_path / "a.ckpt"), tone_batch(1, 900)
    checkpoints = find_checkpoints(str(tmp_path / "a.ckpt"))
    curve = build_systems(checkpoints, "curve", {"rounding_6": Rounding(), "low_pass": Rounding()})
    assert [(system.name, system.family, system.baseline) for system in curve] == [
        *((f"a n_q={n_q}", "a", False) for n_q in (1, 2, 3)),
        ("rounding_6", "rounding", True),
        ("low_pass", "low_pass", True),
    ]
    for system, n_q in zip(build_systems(checkpoints, [2, 3]), (2, 3), strict=True):
        with torch.no_grad():
            assert torch.equal(system.make().reconstruct(wav, 800), codec(wav, n_q).wav)
        assert system.facts == {"system": f"a n_q={n_q}", "checkpoint": "a.ckpt", "step": 7, "weights": "last"}


def test_the_dataset_is_that_of_the_checkpoint_at_the_rate_of_the_evaluation(tmp_path):
    dataset = {"_target_": "codec.data.folder.FolderCorpus", "path": str(tmp_path), "sample_rate": 800, "holdout": 1}
    soundfile.write(tmp_path / "a.wav", np.zeros(4000), 8000)
    saved(tmp_path / "a.ckpt", config={**CONFIG, "dataset": dataset})
    assert corpus_of(find_checkpoints(str(tmp_path / "a.ckpt")), 1600).sample_rate == 1600


def test_unusable_options_are_one_sentence(tmp_path):
    saved(tmp_path / "a.ckpt")
    for path, word in ((tmp_path / "b.ckpt", "there is no checkpoint at"), (tmp_path, "no run")):
        with pytest.raises(CheckpointError, match=word):
            find_checkpoints(str(path))
    found = find_checkpoints(str(tmp_path / "a.ckpt"))
    for arguments, word in (
        (([],), "ckpt=PATH, baseline=NAME, or both"),
        ((found, 4), "choose 1 to 3"),
        *(((found, n_q), "n_q=.*: give a number, a list") for n_q in ("some", 2.5, [], [1, "curve"])),
        ((found * 2,), "a' is not unique"),
        (([], None, {"timing": Rounding()}), "'timing' is not unique"),
    ):
        with pytest.raises(CheckpointError, match=word):
            build_systems(*arguments)
    with pytest.raises(CorpusError, match="dataset=folder"):
        corpus_of(found, 800)
