"""python -m codec pack: the same shards whichever processes write them, however often they are interrupted."""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

from codec.__main__ import main
from codec.data import shard_writer
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.hf import open_hub
from codec.data.mix import MixCorpus
from codec.data.shard_corpus import ShardCorpus
from codec.data.shard_writer import pack
from codec.data.work_units import cut
from tests.helpers.commands import fails
from tests.helpers.hub import hub, question
from tests.helpers.shards import content, packed
from tests.helpers.signals import noise

RATE = 16_000


@pytest.fixture
def source(tmp_path):
    """Twelve recordings of 0.5 s by four speakers, with text and phones, in lossless formats."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = ["file,speaker,text,phones"]
    for i in range(12):
        name = f"{i:02d}.{'flac' if i % 2 else 'wav'}"
        soundfile.write(folder / name, noise(8000, i), RATE, subtype="PCM_16")
        lines.append(f'{name},s{i % 4},"said, {i}é",a@0.0 b@0.{i + 10}')
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def recordings_of(corpus):
    parts = [corpus.part(split) for split in ("train", "val", "test")]
    return {r.name: r for part in parts for r in (part.recording(i) for i in range(len(part)))}


def pack_here(corpus, folder, seconds=3.0, sample_rate=None):
    pack(cut(corpus, seconds), folder, sample_rate, 0, report=lambda _: None)
    return ShardCorpus(folder, sample_rate or RATE)


def test_metadata_and_samples_are_packed(source, tmp_path):
    plain, corpus = FolderCorpus(source, RATE), ShardCorpus(packed(source, tmp_path / "out", holdout=0.25), RATE)
    found = recordings_of(corpus)
    assert len(found) == plain.size == 12
    for i in range(12):
        wanted = plain.recording(i)
        got = found[wanted.name]
        assert (got.speaker, got.text, got.phones) == (wanted.speaker, f"said, {int(wanted.name[:2])}é", wanted.phones)
        assert got.source.startswith(b"fLaC")
        if wanted.name.endswith(".flac"):
            assert got.source == wanted.source.read_bytes()  # not encoded again
    assert len({clip["speaker"] for clip in corpus.clips("val")}) == 1  # whole speakers
    assert corpus.clips("val")[0]["phones"][0] == ("a", 0.0)


def test_the_index_describes_files_that_webdataset_reads(source, tmp_path):
    folder = packed(source, tmp_path / "out", seconds=1.0, holdout=0.25)
    index = json.loads((folder / "index.json").read_text())
    assert sum(shard["recordings"] for shard in index["shards"]) == 12
    assert sum(shard["seconds"] for shard in index["shards"]) == pytest.approx(6.0)
    for shard in index["shards"]:
        tar = (folder / f"{shard['name']}.tar").read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(tar), hashlib.sha256(tar).hexdigest())
    urls = sorted(str(path) for path in folder.glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))  # without decoders, some of which unpickle
    assert {json.loads(s["json"])["file"] for s in samples} == {p.name for p in source.glob("[0-9]*")}
    assert len({sample["__key__"] for sample in samples}) == 12


def test_packing_again_repairs_what_is_missing_and_changes_nothing_else(source, tmp_path):
    out = packed(source, tmp_path / "out", seconds=1.0)
    before, times = content(out), {path: path.stat().st_mtime_ns for path in out.glob("train*")}
    packed(source, out, seconds=1.0)
    assert content(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.glob("train*")} == times
    for removed in ("train-000001.entries", "train-000002.tar", "train-000002.entries", "index.json"):
        (out / removed).unlink()
    (out / "unfinished-train-000001.tar-abc").write_bytes(b"half")  # as of a killed process
    packed(source, out, seconds=1.0)
    assert content(out) == before
    (out / "train-000001.tar").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"train-000001\.tar is missing or damaged: remove train-000001\.entries"):
        packed(source, out, seconds=1.0)


def test_a_folder_of_another_corpus_is_refused(source, speech_folder, tmp_path):
    out = packed(source, tmp_path / "out")
    before = content(out)
    manifest = source / "manifest.csv"
    for other, options in ((speech_folder, {}), (source, {"holdout": 0.5}), (source, {"seconds": 1.0}), (source, {})):
        if not options:
            manifest.write_text(manifest.read_text().replace("said, 3", "said, 4"))
        with pytest.raises(CorpusError, match="another corpus, or with other options"):
            packed(other, out, **options)
    assert content(out) == before


def test_several_processes_write_what_one_writes(source, tmp_path):
    one = packed(source, tmp_path / "one", seconds=1.0)
    units = cut(FolderCorpus(source, RATE), 1.0)
    indices = [pack(units, tmp_path / "two", workers=0, part=(rank, 2), report=lambda _: None) for rank in (1, 0)]
    assert [index is None for index in indices] == [True, False]
    pack(units, tmp_path / "three", workers=2, report=lambda _: None)
    assert content(one) == content(tmp_path / "two") == content(tmp_path / "three")


def test_a_process_killed_twice_and_started_again_writes_the_same(source, tmp_path, monkeypatch):
    one, out = packed(source, tmp_path / "one", seconds=1.0), tmp_path / "out"
    encode = shard_writer._encode
    monkeypatch.setattr(shard_writer, "_encode", lambda *arguments: (time.sleep(0.05), encode(*arguments))[1])
    for already in (1, 3):
        killed = multiprocessing.get_context("fork").Process(target=packed, args=(source, out), kwargs={"seconds": 1.0})
        killed.start()
        while len(list(out.glob("*.entries"))) < already and killed.is_alive():
            time.sleep(0.005)
        os.kill(killed.pid, signal.SIGKILL)
        killed.join(60)
        assert killed.exitcode == -signal.SIGKILL
        assert already <= len(list(out.glob("*.entries"))) < len(list(one.glob("*.entries")))
        assert not (out / "index.json").exists()
    packed(source, out, seconds=1.0)
    assert content(out) == content(one)


def test_samples_are_exact_and_rates_change_on_request(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    deep = np.round(noise(4000) * 2**23) / 2**23
    soundfile.write(folder / "deep.wav", deep, RATE, subtype="PCM_24")
    soundfile.write(folder / "stereo.wav", np.stack([deep, -deep], axis=1), RATE, subtype="PCM_16")
    soundfile.write(folder / "loud.ogg", 3 * noise(44_100), 44_100)
    corpus = FolderCorpus(folder, RATE, holdout=0)
    exact = {name: io.BytesIO(r.source) for name, r in recordings_of(pack_here(corpus, tmp_path / "a")).items()}
    assert np.array_equal(soundfile.read(exact["deep.wav"])[0], deep)
    assert np.abs(soundfile.read(exact["stereo.wav"])[0]).max() < 1e-4
    assert soundfile.info(exact["loud.ogg"]).samplerate == 44_100
    low = recordings_of(pack_here(corpus, tmp_path / "b", sample_rate=8000))
    assert {soundfile.info(io.BytesIO(r.source)).samplerate for r in low.values()} == {8000}


def test_a_streamed_dataset_of_the_hub(tmp_path):
    """One shard of each of its files, and one of its held-out recordings."""
    corpus = open_hub(hub(tmp_path / "hub", bad=[0, 7]), **question(streaming=True, held=2))
    shards = pack_here(corpus, tmp_path / "out", 3600)
    assert [clip["text"] for part in ("test", "val") for clip in shards.clips(part)] == ["question 1", "question 2"]
    found = recordings_of(shards)
    assert {r.text for r in found.values()} == {f"question {i}" for i in range(12)} - {"question 0", "question 7"}
    assert found["1/0:4.flac"].text == "question 4"
    assert b"1/3:7.flac" in (tmp_path / "out" / "train-000001.entries").read_bytes()  # the unreadable are named
    without_text = open_hub(str(tmp_path / "hub"), "question_audio", RATE, streaming=True, held=2)
    with pytest.raises(CorpusError, match="another corpus"):
        pack_here(without_text, tmp_path / "out", 3600)


def test_a_table_of_the_hub_and_shards_of_shards(tmp_path):
    first = pack_here(open_hub(hub(tmp_path / "hub"), **question(holdout=0.2)), tmp_path / "a", 2)
    again = recordings_of(pack_here(first, tmp_path / "b", 2))
    assert len(again) == 12
    assert {n: r.source for n, r in again.items()} == {n: r.source for n, r in recordings_of(first).items()}


def test_a_mix_is_packed_one_by_one(source):
    with pytest.raises(CorpusError, match="one by one"):
        cut(MixCorpus({"a": FolderCorpus(source, RATE)}, {"a": 1}), 10)


def test_a_few_unreadable_recordings_are_left_out_and_many_are_an_error(source, tmp_path):
    (source / "manifest.csv").unlink()
    name = os.fsdecode(b"\xff\xfe.flac")  # Linux allows any bytes in a name, soundfile does not
    (source / name).write_bytes(b"x")
    soundfile.write(source / "nan.wav", np.full(4000, np.nan), RATE, subtype="FLOAT")
    assert [bad for bad, _ in FolderCorpus(source, RATE).bad] == [name]
    assert ShardCorpus(packed(source, tmp_path / "out"), RATE).size == 12
    for i in range(3):
        soundfile.write(source / f"nan{i}.wav", np.full(4000, np.nan), RATE, subtype="FLOAT")
    for _ in range(6):  # what one call has written, the next does not: there are 6 shards or fewer
        with pytest.raises(CorpusError, match="too many"):
            packed(source, tmp_path / "again")
    assert len(list((tmp_path / "again").glob("*.entries"))) > 1
    assert not (tmp_path / "again" / "index.json").exists()


def test_as_a_command(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = ["dataset=folder", "dataset.path=source"]
    main(["pack", "a", *source, "--workers", "0"])
    assert "12 recordings" in capsys.readouterr().out
    main(["pack", "c", *source, "--workers", "0", "--rank", "1", "--world", "2", "--seconds", "1"])
    assert "the last one to finish writes" in capsys.readouterr().out
    fails(["pack", "a", *source, "--sample-rate", "8000"], "another corpus")
    fails(["pack", "d", "dataset=foldr"], "Could not find 'dataset/foldr'", "shards")
    fails(["pack", "d", "dataset=folder"], "dataset=folder is no corpus", "dataset.path")
    fails(["pack", "d", "lr=3"], "lr=3 is no option of a corpus")
    fails(["pack", "d", *source, "--rank", "2", "--world", "2"], "rank 2 of 2")
    assert not Path("d").exists()
