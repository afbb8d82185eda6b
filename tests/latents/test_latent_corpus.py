"""LatentCorpus: the codec's latents, read on demand by any number of workers; damaged files are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch.utils.data import DataLoader

from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.latents.latent_corpus import LatentCorpus, collate
from codec.latents.latent_space import LatentSpace
from tests.helpers.codecs import RATE
from tests.helpers.shards import changed


@pytest.fixture(scope="module")
def corpus(split):
    return LatentCorpus(split.folder)


def test_items_are_what_the_space_makes_of_the_recordings(split, corpus):
    space = LatentSpace.load(split.ckpt, split.folder)
    recordings = FolderCorpus(split.source, RATE)
    assert (corpus.fingerprint, corpus.kind, corpus.dim) == (space.fingerprint, "pre", 8)
    assert (corpus.frame_rate, corpus.sample_rate) == (100, RATE)
    clips = {clip["file"]: clip for clip in FolderCorpus(split.source, RATE, holdout=1).clips("val")}
    held = []
    for part in ("val", "test"):
        files = [clip["file"] for clip in recordings.clips(part)]
        assert [item["file"] for item in corpus.clips(part)] == files
        held += files
    assert {item["file"] for item in corpus.train} == set(clips) - set(held)
    for item in (*corpus.train, *corpus.clips("test")):
        clip = clips[item["file"]]
        torch.testing.assert_close(item["latents"], space.encode(clip["wav"][None])[0], atol=1e-5, rtol=0)
        assert item["phones"] == clip["phones"]
        assert (item["text"], item["speaker"]) == (clip["text"], clip["speaker"])
        assert item["samples"] == clip["wav"].shape[-1]
    frames = torch.cat([item["latents"] for item in corpus.train], dim=1)
    torch.testing.assert_close(frames.mean(1), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.std(1, correction=0), torch.ones(8), atol=1e-4, rtol=0)
    assert corpus.train.lengths.tolist() == [item["latents"].shape[1] for item in corpus.train]


def test_a_piece_of_a_recording(split, corpus):
    whole = corpus.train[0]
    piece = corpus.train.item(0, 30, 25)
    assert torch.equal(piece["latents"], whole["latents"][:, 30:55])
    assert piece["samples"] == 25 * 8
    assert [symbol for symbol, _ in piece["phones"]] == ["p1", "p2"]  # p1 began at 0.2 s and sounds at 0.3 s
    assert [start for _, start in piece["phones"]] == pytest.approx([0.0, 0.1])
    rest = corpus.train.item(0, 90)
    assert torch.equal(rest["latents"], whole["latents"][:, 90:])
    assert rest["samples"] == whole["samples"] - 90 * 8
    short = LatentCorpus(split.folder, max_seconds=0.255)
    for item, every in zip(short.train, corpus.train, strict=True):
        assert torch.equal(item["latents"], every["latents"][:, :25])
        assert [symbol for symbol, _ in item["phones"]] == ["p0", "p1"]
    assert short.train.item(0)["latents"].equal(whole["latents"])
    count = whole["latents"].shape[1]
    for start, frames in ((-1, None), (count, None), (0, 0)):
        with pytest.raises(ValueError, match=f"of a recording of {count}"):
            corpus.train.item(0, start, frames)
    with pytest.raises(IndexError):
        corpus.train[len(corpus.train)]
    with pytest.raises(CorpusError, match=r"max_seconds=0\.005 is less than a frame: give 0\.01"):
        LatentCorpus(split.folder, max_seconds=0.005)


def test_a_batch_is_padded_on_the_right(corpus):
    items = [corpus.train.item(0), corpus.train.item(1, 0, 40)]
    batch = collate(items)
    longest = items[0]["latents"].shape[1]
    assert batch["latents"].shape == (2, 8, longest)
    assert batch["lengths"].tolist() == [longest, 40]
    assert batch["lengths"].dtype == torch.int64
    assert torch.equal(batch["latents"][1, :, :40], items[1]["latents"])
    assert not batch["latents"][1, :, 40:].any()
    assert set(batch) == {"latents", "lengths", "text", "phones", "speaker", "file"}
    assert batch["speaker"] == [item["speaker"] for item in items]


def test_two_workers_read_what_one_reads(split):
    corpus = LatentCorpus(split.folder)
    assert corpus.train[0]["latents"].isfinite().all()  # a file is open when the workers start
    loaders = [DataLoader(corpus.train, 3, num_workers=workers, collate_fn=collate) for workers in (0, 2)]
    for one, two in zip(*loaders, strict=True):
        assert torch.equal(one["latents"], two["latents"])
        assert one["file"] == two["file"]


def test_files_are_opened_on_demand_and_few_stay_open(split, tmp_path, monkeypatch):
    shutil.copytree(split.folder, tmp_path / "out")
    monkeypatch.setattr("codec.latents.shard_file.OPEN_FILES", 2)
    (tmp_path / "out" / "train-000001.safetensors").unlink()
    corpus = LatentCorpus(tmp_path / "out")
    with pytest.raises(CorpusError, match=r"train-000001\.safetensors is no file of latents"):
        corpus.train.lengths  # noqa: B018
    for entry in corpus.index.units:
        if entry.name != "train-000001":
            corpus.shard(entry)
            assert len(corpus._shards) <= 2
    assert len(corpus.index.units) > 3


INDICES = {
    "format": lambda c: c.update(format="codec-shards"),
    "version": lambda c: c.update(version=9),
    "units": lambda c: c.update(units=[]),
    "twice": lambda c: c["units"].append(c["units"][0]),
    "name": lambda c: c["units"][0].update(name="../x"),
    "recordings": lambda c: c["units"][0].update(recordings=-1),
    "split val": lambda c: c["splits"].update(val=[99]),
    "held out": lambda c: c["splits"].update(val=c["splits"]["train"]),
    "mean": lambda c: c.pop("mean"),
}


@pytest.mark.parametrize("reason", INDICES)
def test_an_invalid_index_is_refused(reason, split, tmp_path):
    shutil.copy(split.folder / "index.json", tmp_path)
    changed(tmp_path, INDICES[reason])
    with pytest.raises(CorpusError, match=reason) as error:
        LatentCorpus(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(CorpusError, match="no JSON"):
        LatentCorpus(tmp_path)


# (what the error names, how the tensors and the header of a file are changed)
FILES = [
    ("not finite", lambda tensors, _: tensors["latents"].__setitem__((slice(None), 3), np.nan)),
    ("disagree", lambda tensors, _: tensors.update(latents=tensors["latents"][:, :-1])),
    ("disagree", lambda tensors, _: tensors.update(latents=tensors["latents"].astype(np.float64))),
    ("disagree", lambda tensors, _: tensors.update(ends=tensors["ends"][::-1])),
    ("disagree", lambda tensors, _: tensors.update(lengths=-tensors["lengths"])),
    ("recordings", lambda _, about: about.pop("recordings")),
    ("speaker", lambda _, about: about["recordings"][0].pop("speaker")),
    ("not the file that", lambda _, about: about.update(fingerprint="0" * 32)),
    ("string to float", lambda _, about: about["recordings"][0].update(phones="a@b")),
]


@pytest.mark.parametrize(("reason", "change"), FILES)
def test_a_damaged_file_is_refused(reason, change, split, tmp_path):
    shutil.copytree(split.folder, tmp_path / "out")
    path = tmp_path / "out" / "train-000000.safetensors"
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
    tensors = load_file(path)
    change(tensors, about)
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, path, {"about": json.dumps(about)})
    size = path.stat().st_size
    changed(tmp_path / "out", lambda c: [u.update(bytes=size) for u in c["units"] if path.stem == u["name"]])
    with pytest.raises(CorpusError, match=reason) as error:
        LatentCorpus(tmp_path / "out").train[0]
    assert "\n" not in str(error.value)


def test_a_file_that_was_cut_or_exchanged_is_refused(split, tmp_path):
    shutil.copytree(split.folder, tmp_path / "out")
    path = tmp_path / "out" / "train-000000.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:-100], (tmp_path / "out" / "train-000001.safetensors").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=r"train-000000\.safetensors is .*remove it and extract again"):
            LatentCorpus(tmp_path / "out").train[0]
