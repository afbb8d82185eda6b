"""python -m codec extract --kind latents: the latents, whoever extracts them, and their statistics in training."""

import json
import shutil

import numpy as np
import pytest
import torch

from codec.__main__ import main
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.work_units import cut
from codec.latents.export import LatentExtractor, merged, moments
from codec.latents.extract import extract
from codec.latents.index import LATENTS
from codec.latents.shard_file import ShardFile
from tests.helpers.codecs import HOP, RATE, latents_of, made, saved
from tests.helpers.commands import fails
from tests.helpers.shards import content


def found(folder) -> dict[str, tuple[np.ndarray, dict, int]]:
    """Latents, what is known and the length of every recording in a folder, by its name."""
    every = {}
    for path in folder.glob("*.safetensors"):
        unit = ShardFile(path, LATENTS)
        for i, known in enumerate(unit.recordings):
            every[known["file"]] = unit.read(*unit.span(i)), known, int(unit.lengths[i])
    return every


@pytest.mark.parametrize(("name", "kind"), [("split_rvq", "pre"), ("split_rvq", "post"), ("vae", "pre")])
def test_every_recording_has_the_latents_that_it_has_alone(name, kind, source, tmp_path):
    codec, _ = made(name)
    index = latents_of(codec, source, tmp_path / "out", kind)
    clips = {clip["file"]: clip for clip in FolderCorpus(source, RATE, holdout=1).clips("val")}
    every = found(tmp_path / "out")
    assert set(every) == set(clips)
    for file, (latents, known, length) in every.items():
        wav = clips[file]["wav"]
        with torch.no_grad():
            wanted = codec.quantizer.to_latents(codec.latents(wav[None]), kind)[0]
        assert latents.dtype == np.float32
        assert torch.equal(torch.from_numpy(latents), wanted)
        assert (known["speaker"], known["text"], length) == (clips[file]["speaker"], clips[file]["text"], wav.shape[-1])
        assert known["phones"].startswith("p0@0.0000 p1@0.2000")
    assert (index["kind"], index["dim"]) == (kind, codec.quantizer.latent_dim)
    assert (index["sample_rate"], index["hop_length"]) == (RATE, HOP)
    held = {index["units"][i]["name"] for i in index["splits"]["val"]}
    assert held == {unit["name"] for unit in index["units"] if unit["name"].startswith("held-")}


@pytest.mark.parametrize("seconds", [1.0, 2.0, 1000.0])
def test_statistics_are_those_of_all_training_frames(seconds, split, tmp_path):
    index = latents_of(split.codec, split.source, tmp_path / "out", seconds=seconds)
    every = found(tmp_path / "out")
    corpus = FolderCorpus(split.source, RATE)
    train = [corpus.recording(i).name for i in corpus.splits["train"].tolist()]
    assert 0 < len(train) < len(every)
    frames = np.concatenate([every[file][0] for file in train], axis=1).astype(np.float64)
    np.testing.assert_allclose(index["mean"], frames.mean(1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(index["std"], frames.std(1), rtol=1e-6)


def test_moments_merge_as_if_taken_at_once():
    rng = np.random.default_rng(0)
    frames = 1e4 + rng.standard_normal((3, 5000)).astype(np.float32)  # far from 0: squares would lose the difference
    pieces = [moments(piece) for piece in np.split(frames, [1, 1, 700, 4999], axis=1)]
    count, mean, deviations = merged(pieces)
    assert count == 5000
    wide = frames.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(1), rtol=1e-14)
    np.testing.assert_allclose(deviations, np.square(wide - wide.mean(1, keepdims=True)).sum(1), rtol=1e-11)
    assert merged([moments(frames[:, :0])])[0] == 0


def test_processes_make_together_what_one_makes_and_go_on_where_one_stopped(split, tmp_path):
    out = tmp_path / "out"
    assert latents_of(split.codec, split.source, out, part=(1, 2)) is None
    assert not (out / "index.json").exists()
    latents_of(split.codec, split.source, out, part=(0, 2))
    assert content(out) == content(split.folder)
    (out / "train-000001.safetensors").unlink()
    latents_of(split.codec, split.source, out)
    assert content(out) == content(split.folder)


def test_another_codec_or_kind_is_refused(split):
    for codec, kind in ((made("split_rvq", seed=1)[0], "pre"), (split.codec, "post")):
        with pytest.raises(CorpusError, match="holds work on another corpus, or with other options"):
            latents_of(codec, split.source, split.folder, kind)


def test_a_damaged_unit_is_named_before_the_index_is_written(split, tmp_path):
    shutil.copytree(split.folder, tmp_path / "out")
    path = tmp_path / "out" / "train-000000.safetensors"
    whole = path.read_bytes()
    for damaged in (
        whole[:-10],
        whole.replace(b"moments", b"momentz"),
        whole.replace(b"codec-latents", b"codec-latentz"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"train-000000\.safetensors is .*; remove it and extract again"):
            latents_of(split.codec, split.source, tmp_path / "out")


def test_without_a_training_part_there_are_no_statistics(source, tmp_path):
    units = cut(FolderCorpus(source, RATE, holdout=1), 2.0)
    with pytest.raises(CorpusError, match="every recording is held out"):
        extract(LatentExtractor(made("none")[0]), units, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_codec_that_has_diverged_writes_nothing(source, tmp_path):
    codec, _ = made("none")
    torch.nn.init.constant_(next(codec.encoder.parameters()), torch.nan)
    with pytest.raises(ValueError, match="latents that are not finite"):
        latents_of(codec, source, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_as_a_command(split, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = ["dataset=folder", f"dataset.path={split.source}", "--device", "cpu"]
    options = ["--kind", "latents", "--ckpt", str(split.ckpt), *source]
    main(["extract", "out", *options])
    assert "12 recordings, 0.00 h, 8 channels at 100 Hz (pre): out/index.json" in capsys.readouterr().out
    index, before = (json.loads((folder / "index.json").read_text()) for folder in (tmp_path / "out", split.folder))
    assert index["fingerprint"] == before["fingerprint"]  # though the command computes in the form for inference
    np.testing.assert_allclose(index["mean"], before["mean"], atol=1e-5)
    main(["extract", "post", *options, "--latents", "post"])
    assert "(post): post/index.json" in capsys.readouterr().out
    fails(["extract", "out", *options, "--latents", "post"], "holds work on another corpus")
    fails(["extract", "new", *options, "--n-q", "2"], "--n-q has no meaning")
    fails(["extract", "new", "--ckpt", split.ckpt, *source, "--latents", "pre"], "--latents has no meaning")
    saved(tmp_path / "vae.ckpt", "vae")
    main(["extract", "vae", "--kind", "latents", "--ckpt", "vae.ckpt", *source])
    assert "3 channels" in capsys.readouterr().out
    fails(["extract", "new", "--kind", "latents", "--ckpt", "vae.ckpt", *source, "--latents", "post"], "continuous")
    fails(["extract", "new", "--ckpt", "vae.ckpt", *source], "this codec is continuous and has no tokens")
    fails(["encode", split.source / "00.flac", "new", "--ckpt", "vae.ckpt"], "this codec is continuous")
    assert not (tmp_path / "new").exists()
