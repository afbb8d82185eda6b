"""python -m codec pack: the same shards whoever makes them, however often they are interrupted."""

import hashlib
import io
import json
import multiprocessing
import os
import signal
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset

import codec.data.shard_writer as shard_maker
from codec.__main__ import main
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.hf import open_hub
from codec.data.mix import MixCorpus
from codec.data.shard_corpus import ShardCorpus
from codec.data.shard_writer import pack
from codec.data.work_units import cut
from codec.utils.distributed import rank_and_world_size
from codec.utils.errors import InputError
from tests.helpers.commands import fails
from tests.helpers.hub import hub, question
from tests.helpers.shards import content, packed
from tests.helpers.signals import noise

RATE = 16_000


@pytest.fixture
def source(tmp_path):
    """Twelve recordings of 0.5 s by four speakers, with text and phones, in formats that keep every sample."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = ["file,speaker,text,phones"]
    for i in range(12):
        name = f"{i:02d}.{'flac' if i % 2 else 'wav'}"
        soundfile.write(folder / name, noise(8000, i), RATE, subtype="PCM_16")
        lines.append(f'{name},s{i % 4},"said, {i}é",a@0.0 b@0.{i + 10}')
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def by_file(corpus):
    parts = [corpus.part(split) for split in ("train", "val")]
    return {r.name: r for part in parts for r in (part.recording(i) for i in range(len(part)))}


def test_what_is_known_of_a_recording_is_packed(source, tmp_path):
    corpus = ShardCorpus(packed(source, tmp_path / "out", holdout=0.25), RATE)
    plain = FolderCorpus(source, RATE)
    found = by_file(corpus)
    assert len(found) == plain.size == 12
    for i in range(12):
        wanted = plain.recording(i)
        got = found[wanted.name]
        assert (got.speaker, got.text, got.phones) == (wanted.speaker, wanted.text, wanted.phones)
        assert got.source.startswith(b"fLaC")
        if wanted.name.endswith(".flac"):
            assert got.source == wanted.source.read_bytes()  # not even encoded again
    held = {clip["speaker"] for clip in corpus.clips("val")}
    assert len(held) == 1  # whole speakers, as the folder holds them out
    clip = corpus.clips("val")[0]
    assert clip["phones"][0] == ("a", 0.0)
    for name, recording in found.items():
        assert recording.text == f"said, {int(name[:2])}é"


def test_the_index_says_what_is_there(source, tmp_path):
    folder = packed(source, tmp_path / "out", seconds=1.0, holdout=0.25)
    index = json.loads((folder / "index.json").read_text())
    assert sum(shard["recordings"] for shard in index["shards"]) == 12
    assert sum(shard["seconds"] for shard in index["shards"]) == pytest.approx(6.0)
    for shard in index["shards"]:
        tar = (folder / f"{shard['name']}.tar").read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(tar), hashlib.sha256(tar).hexdigest())
    assert not list(folder.glob("unfinished*"))


def test_webdataset_reads_the_shards(source, tmp_path):
    """Its own reader, without decoders: those of some names unpickle."""
    folder = packed(source, tmp_path / "out", holdout=0)
    urls = sorted(str(path) for path in folder.glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert {json.loads(sample["json"])["file"] for sample in samples} == {p.name for p in source.glob("*.*a*")} - {
        "manifest.csv"
    }
    assert len({sample["__key__"] for sample in samples}) == 12


def test_packing_again_changes_nothing_and_mends_what_is_missing(source, tmp_path):
    out = packed(source, tmp_path / "out", seconds=1.0)
    before, times = content(out), {path: path.stat().st_mtime_ns for path in out.glob("train*")}
    packed(source, out, seconds=1.0)
    assert content(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.glob("train*")} == times
    for left in ("train-000001.entries", "train-000002.tar", "train-000002.entries", "index.json"):
        (out / left).unlink()
    (out / "unfinished-train-000001.tar-abc").write_bytes(b"half")  # a killed process leaves such
    packed(source, out, seconds=1.0)
    assert content(out) == before
    (out / "train-000001.tar").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"train-000001\.tar is missing or damaged: remove train-000001\.entries"):
        packed(source, out, seconds=1.0)


def test_a_folder_of_another_corpus_is_left_alone(source, speech_folder, tmp_path):
    out = packed(source, tmp_path / "out")
    before = content(out)
    for other, options in ((speech_folder, {}), (source, {"holdout": 0.5}), (source, {"seconds": 1.0})):
        with pytest.raises(CorpusError, match="holds work on another corpus, or with other options"):
            packed(other, out, **options)
    manifest = source / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("said, 3", "said, 4"))
    with pytest.raises(CorpusError, match="holds work on another corpus"):
        packed(source, out)
    assert content(out) == before


def test_processes_that_share_the_work_make_what_one_makes(source, tmp_path):
    one = packed(source, tmp_path / "one", seconds=1.0)
    units = cut(FolderCorpus(source, RATE), 1.0)
    made = [pack(units, tmp_path / "two", workers=0, part=(rank, 2), report=lambda _: None) for rank in (1, 0)]
    assert [index is None for index in made] == [True, False]
    pack(units, tmp_path / "three", workers=2, report=lambda _: None)
    assert content(one) == content(tmp_path / "two") == content(tmp_path / "three")


def test_killed_anywhere_and_started_again(source, tmp_path, monkeypatch):
    """A process that is killed in the middle, twice, and then not, makes what an untouched one makes."""
    one, out = packed(source, tmp_path / "one", seconds=1.0), tmp_path / "out"
    encode = shard_maker._encode
    monkeypatch.setattr(shard_maker, "_encode", lambda *arguments: (time.sleep(0.05), encode(*arguments))[1])
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


def test_samples_are_kept_and_rates_are_changed_on_request(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    deep = np.round(noise(4000) * 2**23) / 2**23
    soundfile.write(folder / "deep.wav", deep, RATE, subtype="PCM_24")
    soundfile.write(folder / "stereo.wav", np.stack([deep, -deep], axis=1), RATE, subtype="PCM_16")
    soundfile.write(folder / "loud.ogg", 3 * noise(44_100), 44_100)
    kept = by_file(ShardCorpus(packed(folder, tmp_path / "kept", holdout=0), RATE))
    assert np.array_equal(soundfile.read(io.BytesIO(kept["deep.wav"].source))[0], deep)
    assert np.abs(soundfile.read(io.BytesIO(kept["stereo.wav"].source))[0]).max() < 1e-4
    assert soundfile.info(io.BytesIO(kept["loud.ogg"].source)).samplerate == 44_100
    pack(cut(FolderCorpus(folder, RATE, holdout=0), 3), tmp_path / "low", 8000, 0, report=lambda _: None)
    low = by_file(ShardCorpus(tmp_path / "low", 8000))
    assert {soundfile.info(io.BytesIO(r.source)).samplerate for r in low.values()} == {8000}


def test_a_name_that_is_no_text_is_left_out_and_named(source, tmp_path):
    """Linux allows any bytes in a name, soundfile does not."""
    (source / "manifest.csv").unlink()
    name = os.fsdecode(b"\xff\xfe.flac")
    (source / "01.flac").rename(source / name)
    corpus = FolderCorpus(source, RATE, holdout=0)
    assert [bad for bad, _ in corpus.bad] == [name]
    pack(cut(corpus, 3), tmp_path / "out", workers=0, report=lambda _: None)
    assert ShardCorpus(tmp_path / "out", RATE).size == 11


def test_a_streamed_dataset_of_the_hub(tmp_path):
    """VoiceAssistant-400K's schema: one shard of each of its files, its held-out recordings in one of their own."""
    corpus = open_hub(hub(tmp_path / "hub", bad=[0, 7]), **question(streaming=True, held=2))
    out = tmp_path / "out"
    lines = []
    pack(cut(corpus, 3600), out, workers=0, report=lines.append)
    shards = ShardCorpus(out, RATE)
    assert {clip["text"] for clip in shards.clips("val")} == {"question 1", "question 2"}
    found = by_file(shards)
    assert {r.text for r in found.values()} == {f"question {i}" for i in range(12)} - {"question 0", "question 7"}
    assert found["1/0:4.flac"].text == "question 4"
    entries = (out / "train-000001.entries").read_bytes()
    assert b"1/3:7.flac" in entries  # what could not be read is on record
    assert len(lines) == 4
    crops = shards.crops(4000, 0)
    heard = {item["text"] for item in islice((crops[n] for n in range(crops.slots)), 1000)}
    assert heard == {f"question {i}" for i in range(12)} - {"question 0", "question 1", "question 2", "question 7"}
    silent = open_hub(str(tmp_path / "hub"), "question_audio", RATE, streaming=True, held=2)  # without its text
    with pytest.raises(CorpusError, match="holds work on another corpus"):
        pack(cut(silent, 3600), out, workers=0)


def test_a_table_of_the_hub_and_shards_of_shards(tmp_path):
    corpus = open_hub(hub(tmp_path / "hub"), **question(holdout=0.2))
    pack(cut(corpus, 2), tmp_path / "a", workers=0, report=lambda _: None)
    first = ShardCorpus(tmp_path / "a", RATE)
    assert len(by_file(first)) == 12
    pack(cut(first, 2), tmp_path / "b", workers=0, report=lambda _: None)
    assert {n: r.source for n, r in by_file(ShardCorpus(tmp_path / "b", RATE)).items()} == {
        n: r.source for n, r in by_file(first).items()
    }


def test_a_mix_is_packed_one_by_one(source):
    with pytest.raises(CorpusError, match="one by one"):
        cut(MixCorpus({"a": FolderCorpus(source, RATE)}, {"a": 1}), 10)


def test_too_many_bad_recordings_end_it_and_a_few_are_left_out(source, tmp_path):
    (source / "manifest.csv").unlink()
    (source / "bad.wav").write_text("no audio")
    soundfile.write(source / "nan.wav", np.full(4000, np.nan), RATE, subtype="FLOAT")
    corpus = ShardCorpus(packed(source, tmp_path / "out"), RATE)
    assert corpus.size == 12
    for i in range(3):
        soundfile.write(source / f"nan{i}.wav", np.full(4000, np.nan), RATE, subtype="FLOAT")
    for _ in range(6):  # what one call has made, the next does not make again: there are 6 shards or fewer
        with pytest.raises(CorpusError, match="too many"):
            packed(source, tmp_path / "again")
    assert len(list((tmp_path / "again").glob("*.entries"))) > 1
    assert not (tmp_path / "again" / "index.json").exists()


def test_as_a_command(source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = ["dataset=folder", "dataset.path=source"]
    main(["pack", "a", *source, "--workers", "0"])
    assert "12 recordings" in capsys.readouterr().out
    main(["pack", "b", "--workers", "0", "--rank", "0", "--world", "1", *source])
    assert content(tmp_path / "a") == content(tmp_path / "b")
    main(["pack", "c", *source, "--workers", "0", "--rank", "1", "--world", "2", "--seconds", "1"])
    assert "the last one to finish writes" in capsys.readouterr().out
    fails(["pack", "a", *source, "--sample-rate", "8000"], "a holds work on another corpus")
    fails(["pack", "d", "dataset=foldr"], "Could not find 'dataset/foldr'", "shards")
    fails(["pack", "d", "dataset=folder"], "dataset=folder is no corpus", "dataset.path")
    fails(["pack", "d", "lr=3"], "lr=3 is no option of a corpus")
    fails(["pack", "d", *source, "--rank", "1"], "--rank and --world")
    fails(["pack", "d", *source, "--rank", "2", "--world", "2"], "rank 2 of 2")
    assert not Path("d").exists()


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (3, 8)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, (0, 1)),  # a batch script that starts one process
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "0"}, (5, 8)),
        ({"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"}, (7, 8)),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_STEP": "2"}, (2, 3)),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "RANK": "1", "WORLD_SIZE": "4"}, (5, 8)),
    ],
)
def test_the_share_of_a_process(environment, wanted):
    assert rank_and_world_size(None, None, environment) == wanted
    assert rank_and_world_size(1, 2, environment) == (1, 2)


def test_shares_that_cannot_be():
    for rank, world, environment in ((0, None, {}), (2, 2, {}), (-1, 2, {}), (None, None, {"WORLD_SIZE": "x"})):
        with pytest.raises(InputError):
            rank_and_world_size(rank, world, environment)
