"""LatentCorpus: items as the codec gives them, read when asked for, by any number of workers; damage is named."""

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


@pytest.fixture(scope="module")
def corpus(split):
    return LatentCorpus(split.folder)


def test_items_are_what_the_space_makes_of_the_recordings(split, corpus):
    space = LatentSpace.load(split.ckpt, split.folder)
    recordings = FolderCorpus(split.source, RATE)
    assert (corpus.fingerprint, corpus.kind, corpus.dim) == (space.fingerprint, "pre", 8)
    assert (corpus.frame_rate, corpus.sample_rate) == (100, RATE)
    clips = {clip["file"]: clip for clip in FolderCorpus(split.source, RATE, holdout=1).clips("val")}
    held = [clip["file"] for clip in recordings.clips("val")]
    assert [item["file"] for item in corpus.clips("val")] == held
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
    assert corpus.train[0]["latents"].isfinite().all()  # a unit is open when the workers start
    loaders = [DataLoader(corpus.train, 3, num_workers=workers, collate_fn=collate) for workers in (0, 2)]
    for one, two in zip(*loaders, strict=True):
        assert torch.equal(one["latents"], two["latents"])
        assert one["file"] == two["file"]


def test_units_are_opened_when_they_are_needed_and_not_kept_without_end(split, tmp_path, monkeypatch):
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


def damaged_index(change):
    def damage(folder):
        content = json.loads((folder / "index.json").read_text())
        change(content)
        (folder / "index.json").write_text(json.dumps(content))

    return damage


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


@pytest.mark.parametrize("sentence", INDICES)
def test_an_index_is_believed_within_bounds(sentence, split, tmp_path):
    (tmp_path / "index.json").write_bytes((split.folder / "index.json").read_bytes())
    damaged_index(INDICES[sentence])(tmp_path)
    with pytest.raises(CorpusError, match=sentence) as error:
        LatentCorpus(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(CorpusError, match="no JSON"):
        LatentCorpus(tmp_path)


def rewritten(path, change):
    """The unit with other tensors or metadata, and an index that counts its bytes."""
    with safe_open(path, framework="np") as file:
        about = json.loads(file.metadata()["about"])
    tensors = load_file(path)
    change(tensors, about)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, path, {"about": json.dumps(about)}
    )
    size = path.stat().st_size
    damaged_index(lambda c: [u.update(bytes=size) for u in c["units"] if path.stem == u["name"]])(path.parent)


def not_finite(tensors, about):
    tensors["latents"][:, 3] = np.nan


def too_short(tensors, about):
    tensors["latents"] = tensors["latents"][:, :-1]


def of_doubles(tensors, about):
    tensors["latents"] = tensors["latents"].astype(np.float64)


def unsorted(tensors, about):
    tensors["ends"] = tensors["ends"][::-1]


def negative(tensors, about):
    tensors["lengths"] = -tensors["lengths"]


UNITS = {
    "not finite": not_finite,
    "header disagree": too_short,
    "latents and header disagree": of_doubles,
    "disagree": unsorted,
    "damaged, or of another version": negative,
    "recordings: Field required": lambda tensors, about: about.pop("recordings"),
    "speaker": lambda tensors, about: about["recordings"][0].pop("speaker"),
    "not the file that": lambda tensors, about: about.update(fingerprint="0" * 32),
    "could not convert string to float": lambda tensors, about: about["recordings"][0].update(phones="a@b"),
}


@pytest.mark.parametrize("sentence", UNITS)
def test_a_damaged_unit_is_refused(sentence, split, tmp_path):
    shutil.copytree(split.folder, tmp_path / "out")
    rewritten(tmp_path / "out" / "train-000000.safetensors", UNITS[sentence])
    with pytest.raises(CorpusError, match=sentence) as error:
        LatentCorpus(tmp_path / "out").train[0]
    assert "\n" not in str(error.value)


def test_a_unit_that_was_cut_or_exchanged_is_refused(split, tmp_path):
    shutil.copytree(split.folder, tmp_path / "out")
    path = tmp_path / "out" / "train-000000.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:-100], (tmp_path / "out" / "train-000001.safetensors").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=r"train-000000\.safetensors is .*remove it and extract again"):
            LatentCorpus(tmp_path / "out").train[0]
