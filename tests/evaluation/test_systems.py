"""Who takes part: files, run folders, sweeps, codebooks, baselines."""

import os

import numpy as np
import pytest
import soundfile
import torch

from codec.checkpoints.load import CheckpointError
from codec.data.base import CorpusError
from codec.evaluation.systems import build_systems, corpus_of, find, out_folder
from tests.checkpoints.test_load import CONFIG, saved
from tests.helpers.parts import tone_batch
from tests.helpers.run_folders import write_run
from tests.helpers.speech import Rounding


def run_folder(folder, overrides=()):
    """A run with a checkpoint, as train.py leaves it."""
    write_run(folder, overrides)
    (folder / "checkpoints").mkdir()
    saved(folder / "checkpoints" / "last.ckpt")


def test_a_file_a_run_and_a_sweep_are_found(tmp_path):
    saved(tmp_path / "alone.ckpt")
    for n, seed in enumerate((0, 1)):
        run_folder(tmp_path / "sweep" / str(n), [f"seed={seed}", "disc=msd"])
    (alone,) = find(str(tmp_path / "alone.ckpt"))
    assert (alone.run, alone.step, alone.sample_rate) == (None, 7, 800)
    (first,) = find(str(tmp_path / "sweep" / "0"))
    assert first.path == tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt"
    assert [c.run.folder.name for c in find([str(tmp_path / "sweep"), str(tmp_path / "sweep" / "1")])] == ["0", "1"]
    assert find(None) == []


def test_names_say_what_differs(tmp_path):
    for n, disc in enumerate(("msd", "mfd")):
        run_folder(tmp_path / str(n), [f"disc={disc}", "seed=3"])
    saved(tmp_path / "alone.ckpt")
    checkpoints = find([str(tmp_path / "0"), str(tmp_path / "1"), str(tmp_path / "alone.ckpt")])
    assert [c.name for c in build_systems(checkpoints)] == ["disc=msd", "disc=mfd", "alone"]
    curve = build_systems(checkpoints[2:], "curve", {"rounding_6": Rounding(), "low_pass": Rounding()})
    assert [(c.name, c.family, c.baseline) for c in curve] == [
        ("alone n_q=1", "alone", False),
        ("alone n_q=2", "alone", False),
        ("alone n_q=3", "alone", False),
        ("rounding_6", "rounding", True),
        ("low_pass", "low_pass", True),
    ]


def test_checkpoints_of_one_run_and_files_of_one_name_stay_apart(tmp_path):
    run_folder(tmp_path / "run")
    saved(tmp_path / "run" / "checkpoints" / "best.ckpt")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        saved(tmp_path / folder / "m.ckpt")
    both = [str(tmp_path / "run" / "checkpoints" / f"{name}.ckpt") for name in ("last", "best")]
    assert [c.name for c in build_systems(find(both))] == ["run last", "run best"]
    others = [str(tmp_path / folder / "m.ckpt") for folder in ("a", "b")]
    assert [c.name for c in build_systems(find(others))] == ["a/m", "b/m"]
    assert len(find([both[0], os.path.relpath(both[0])])) == 1


def test_the_dataset_follows_the_rate(tmp_path):
    dataset = {"_target_": "codec.data.folder.FolderCorpus", "path": str(tmp_path), "sample_rate": 800, "holdout": 1}
    soundfile.write(tmp_path / "a.wav", np.zeros(4000), 8000)
    saved(tmp_path / "a.ckpt", config={**CONFIG, "dataset": dataset})
    assert corpus_of(find(str(tmp_path / "a.ckpt")), 1600).sample_rate == 1600


def test_a_contestant_is_the_codec_of_its_file(tmp_path):
    codec = saved(tmp_path / "a.ckpt")
    wav = tone_batch(1, 900)
    for one, n_q in zip(build_systems(find(str(tmp_path / "a.ckpt")), [2, 3]), (2, 3), strict=True):
        with torch.no_grad():
            assert torch.equal(one.make().reconstruct(wav, 800), codec(wav, n_q).wav)
        assert one.facts == {"system": f"a n_q={n_q}", "checkpoint": "a.ckpt", "step": 7, "weights": "last"}


def test_what_cannot_take_part_is_one_sentence(tmp_path):
    saved(tmp_path / "a.ckpt")
    for path, sentence in ((tmp_path / "b.ckpt", "there is no checkpoint at"), (tmp_path, "no run")):
        with pytest.raises(CheckpointError, match=sentence):
            find(str(path))
    found = find(str(tmp_path / "a.ckpt"))
    for arguments, sentence in (
        (([],), "ckpt=PATH, baseline=NAME, or both"),
        ((found, 4), "n_q=4, but the quantizer has 3 codebooks: choose 1 to 3"),
        ((found, "some"), r"n_q=some: give a number, a list such as \[1,2,4\], or curve"),
        ((found * 2,), "a' is no name of its own"),
        ((found, 2.5), r"n_q=2.5: give a number"),
        ((found, []), r"n_q=\[\]: give a number"),
        ((found, [1, "curve"]), "give a number"),
        (([], None, {"timing": Rounding()}), "'timing' is no name of its own"),
    ):
        with pytest.raises(CheckpointError, match=sentence):
            build_systems(*arguments)
    with pytest.raises(CorpusError, match="dataset=folder"):
        corpus_of(found, 800)


def test_the_report_goes_where_the_checkpoints_are(tmp_path):
    for name in ("0", "1"):
        run_folder(tmp_path / "sweep" / name, [f"seed={name}"])
    checkpoints = find(str(tmp_path / "sweep"))
    assert out_folder(checkpoints) == tmp_path / "sweep" / "eval"
    assert out_folder(checkpoints[:1]) == tmp_path / "sweep" / "0" / "checkpoints" / "eval_last"
    assert checkpoints[0].config == CONFIG
