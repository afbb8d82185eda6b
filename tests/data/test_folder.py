"""Folders: draws, splits, manifests, and invalid input."""

import csv
import sys

import numpy as np
import pytest
import soundfile
import torch

from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.manifest import read_manifest
from codec.data.read_errors import ReadErrors

RATE = 16_000


def manifest(root, rows, name="manifest.csv"):
    with open(root / name, "w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def names(clips):
    return [clip["file"] for clip in clips]


def test_a_draw_depends_on_seed_and_number_alone(folder):
    first, second = (FolderCorpus(folder, RATE).crops(4000, seed=3) for _ in range(2))
    backwards = {n: second[n] for n in reversed(range(60))}
    for n in range(60):
        item, again = first[n], backwards[n]
        assert item["file"] == again["file"]
        assert torch.equal(item["wav"], again["wav"])
    other = FolderCorpus(folder, RATE).crops(4000, seed=4)
    assert [first[n]["file"] for n in range(20)] != [other[n]["file"] for n in range(20)]


def test_an_item_has_the_form_of_the_contract(folder):
    item = FolderCorpus(folder, 24_000).crops(12_000, 0)[7]
    assert item["wav"].shape == (1, 12_000)
    assert item["wav"].dtype == torch.float32
    assert item["wav"].abs().max() <= 1
    assert (item["speaker"], item["text"], item["phones"], item["skipped"]) == ("", "", [], [])


def test_each_epoch_has_every_slot_once_in_a_new_order(folder):
    crops = FolderCorpus(folder, RATE, holdout=0).crops(4000, 0)
    assert crops.slots == sum(-(-round(0.3 * (i + 1) * RATE) // 4000) for i in range(10))
    epochs = [[crops.slot(n) for n in range(e * crops.slots, (e + 1) * crops.slots)] for e in range(3)]
    assert all(sorted(epoch) == list(range(crops.slots)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_crops_reach_every_part_of_a_file(tmp_path, write):
    write(tmp_path / "a.wav", 1.0)
    crops = FolderCorpus(tmp_path, RATE, holdout=0).crops(3000, 0)
    starts = [crops.locate(slot, jitter)[1] for slot in range(crops.slots) for jitter in (0, 0.5, 1 - 1e-9)]
    assert (min(starts), max(starts)) == (0, RATE - 3000)
    assert starts == sorted(starts)


def test_a_clip_of_5_ms_is_repeated(tmp_path, write):
    write(tmp_path / "a.wav", 0.005)
    item = FolderCorpus(tmp_path, RATE, holdout=0).crops(4000, 0)[0]
    assert item["wav"].shape == (1, 4000)
    assert torch.equal(item["wav"][0].view(50, 80), item["wav"][0, :80].expand(50, 80))
    assert item["padding"] == 1 - 80 / 4000


def test_clips_are_whole_in_fixed_order_or_cut(folder):
    corpus = FolderCorpus(folder, RATE, holdout=1)
    clips = corpus.clips("test")
    assert len(clips) == 10
    assert names(clips) == names(FolderCorpus(folder, RATE, holdout=1).clips("val"))
    lengths = {corpus.recording(i).name: corpus.lengths[i] for i in range(10)}
    assert {clip["file"]: clip["wav"].shape[-1] for clip in clips} == lengths
    assert max(clip["wav"].shape[-1] for clip in corpus.clips("test", 0.5)) == RATE // 2
    with pytest.raises(CorpusError, match="holdout"):
        corpus.crops(4000, 0)


def test_files_are_held_out_and_never_trained_on(folder):
    corpus = FolderCorpus(folder, RATE, holdout=0.2)
    crops = corpus.crops(4000, 0)
    trained = {crops[n]["file"] for n in range(crops.slots)}
    test, val = (names(corpus.clips(split)) for split in ("test", "val"))
    assert (len(test), len(val), len(trained)) == (2, 2, 6)
    assert {*test} | {*val} | trained == {row.file for row in corpus.rows}
    assert names(FolderCorpus(folder, RATE, holdout=0.2).clips("test")) == test
    assert len(FolderCorpus(folder, RATE, holdout=0.01).clips("val")) == 1
    assert corpus.facts()["held_out_by"] == "file"
    assert "speakers" in corpus.facts()["held_out_warning"]


def test_whole_speakers_are_held_out(folder):
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.flac"))
    manifest(folder, [{"file": file, "speaker": f"s{i % 5}", "text": f"t{i}"} for i, file in enumerate(files)])
    corpus = FolderCorpus(folder, RATE, holdout=0.2)
    crops = corpus.crops(4000, 0)
    trained = {crops[n]["speaker"] for n in range(crops.slots)}
    test, val = ({clip["speaker"] for clip in corpus.clips(split)} for split in ("test", "val"))
    assert (len(trained), len(test), len(val)) == (3, 1, 1)
    assert len(trained | test | val) == 5
    assert corpus.facts() == {"held_out_by": "speaker"}
    assert {clip["text"] for clip in corpus.clips("val")} < {f"t{i}" for i in range(10)}
    # speakers alternate in the clips
    manifest(folder, [{"file": file, "speaker": f"s{i // 2}"} for i, file in enumerate(files)])
    speakers = [clip["speaker"] for clip in FolderCorpus(folder, RATE, holdout=1).clips("test")]
    assert speakers == ["s0", "s1", "s2", "s3", "s4"] * 2
    # a speaker of nearly all recordings stays in training
    manifest(folder, [{"file": file, "speaker": "big" if i else "small"} for i, file in enumerate(files)])
    assert [clip["speaker"] for clip in FolderCorpus(folder, RATE, holdout=0.05).clips("val")] == ["small"]


def test_the_split_of_a_manifest_is_respected(folder):
    rows = [{"file": f"part{i % 2}/{i}.flac", "split": ("train", "", "dev", "test")[i % 4]} for i in range(8)]
    manifest(folder, rows, "mine.csv")
    corpus = FolderCorpus(folder, RATE, manifest=folder / "mine.csv", holdout=0.5)
    assert corpus.size == 8
    assert set(names(corpus.clips("val"))) == {"part0/2.flac", "part0/6.flac"}
    assert set(names(corpus.clips("test"))) == {"part1/3.flac", "part1/7.flac"}
    crops = corpus.crops(4000, 0)
    assert {crops[n]["file"][-6] for n in range(crops.slots)} == set("0145")


def test_phones_follow_the_crop(tmp_path, write):
    write(tmp_path / "a.wav", 2.0)
    manifest(tmp_path, [{"file": "a.wav", "phones": "a@0.1 b@0.5 c@1.0 d@1.5"}])
    crops = FolderCorpus(tmp_path, RATE, holdout=0).crops(RATE // 2, 0)
    whole = FolderCorpus(tmp_path, RATE, holdout=1).clips("test")[0]
    assert whole["phones"] == [("a", 0.1), ("b", 0.5), ("c", 1.0), ("d", 1.5)]
    for n in range(20):
        _, start = crops.locate(crops.slot(n), np.random.default_rng((0, 1, n)).random())
        expected = [(s, max(0, t - start / RATE)) for s, t in whole["phones"] if 0 < t - start / RATE < 0.5]
        sounding = [(s, 0.0) for s, t in whole["phones"] if t <= start / RATE][-1:]
        found = crops[n]["phones"]
        assert [s for s, _ in found] == [s for s, _ in sounding + expected]
        np.testing.assert_allclose([t for _, t in found], [t for _, t in sounding + expected], atol=1e-9)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        *(({"file": "a.wav", "phones": p}, "phones") for p in ("b@0.5 a@0.1", "a@-0.1", "a@nan", "a@inf", "a", "@0.1")),
        *(({"file": f, "text": "x"}, "inside") for f in ("../secret.wav", "/etc/passwd", "a/../../secret.wav", "")),
        ({"address": "a.wav", "words": "x"}, "address, words.*manifest=none"),
        ({"file": "a.wav", "split": "middle"}, "middle"),
    ],
    ids=str,
)
def test_an_invalid_manifest_is_refused(tmp_path, write, row, word):
    write(tmp_path / "secret.wav")
    write(tmp_path / "corpus" / "a.wav")
    manifest(tmp_path / "corpus", [row])
    with pytest.raises(CorpusError, match=word):
        FolderCorpus(tmp_path / "corpus", RATE)


@pytest.mark.parametrize("row", ["," * 2**20, '"a\n",' * 2**18], ids=["cells", "lines"])
def test_a_manifest_with_an_endless_row_is_refused(tmp_path, row):
    (tmp_path / "manifest.csv").write_text(f"file\n{row}")
    with pytest.raises(CorpusError, match="has a row of more than"):
        FolderCorpus(tmp_path, RATE)


def test_the_memory_of_a_manifest_is_bounded(folder, monkeypatch):
    rows = [{"file": f"{i}.flac", "speaker": "s" * 1000, "text": "t" * 100, "notes": "n" * 1000} for i in range(10)]
    manifest(folder, rows)
    monkeypatch.setattr("codec.data.manifest.MOST_MEMORY", 10 * 400 + 2 * 1100)
    read, columns = read_manifest(folder / "manifest.csv")
    assert columns == ["file", "speaker", "text", "notes"]  # notes are not stored, and the speaker once
    assert [row.text for row in read] == ["t" * 100] * 10
    monkeypatch.setattr("codec.data.manifest.MOST_MEMORY", 1500)
    with pytest.raises(CorpusError, match="takes more than 1,500 bytes"):
        read_manifest(folder / "manifest.csv")


def test_folders_without_readable_audio_are_an_error(tmp_path):
    with pytest.raises(CorpusError, match="is not a folder"):
        FolderCorpus(tmp_path / "nowhere", RATE)
    with pytest.raises(CorpusError, match="holds no audio"):
        FolderCorpus(tmp_path, RATE)
    for i in range(4):
        (tmp_path / f"{i}.wav").write_text("no audio")
    with pytest.raises(CorpusError, match="none of the 4 audio files") as caught:
        FolderCorpus(tmp_path, RATE)
    assert "\n" not in str(caught.value)
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(CorpusError, match="in a row"):
        FolderCorpus(tmp_path, RATE, holdout=0).crops(4000, 0)[0]


def test_headers_are_cached_outside_the_folder_and_read_again_after_a_change(folder, write, cache, monkeypatch):
    before = sorted(folder.rglob("*"))
    FolderCorpus(folder, RATE)
    assert sorted(folder.rglob("*")) == before
    assert list((cache / "folders").iterdir())
    write(folder / "part0" / "0.flac", 2.0, seed=99)
    probed = []
    probe = FolderCorpus.__init__.__globals__["audio"].probe
    monkeypatch.setattr("codec.data.audio.probe", lambda *a: (probed.append(a[1]), probe(*a))[1])
    assert FolderCorpus(folder, RATE).lengths[0] == 2 * RATE
    assert probed == ["part0/0.flac"]
    monkeypatch.setenv("CODEC_CACHE", str(folder / "part0" / "0.flac" / "cache"))  # cannot be written
    assert FolderCorpus(folder, RATE).size == 10


def test_the_walk_follows_links_and_says_what_it_passes_over(tmp_path, write, caplog):
    root = tmp_path / "corpus"
    flac = write(tmp_path / "elsewhere" / "deep" / "linked.flac").read_bytes()
    for name in ("a.WAV", "b.Flac", "sub/c.oga", "d.audio", "e"):
        write(root / "x.flac").rename((root / name).parent.mkdir(exist_ok=True) or root / name)
    write(root / "f.aiff")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "sub" / "back").symlink_to(root)  # a loop
    (root / "again").symlink_to(root / "sub")  # the same files
    for name in ("._a.WAV", "__MACOSX/a.wav", ".git/a.flac", "notes.txt", "page.pdf", "scan.pdf"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(flac if name.endswith("flac") else b"no audio")
    with caplog.at_level("INFO"):
        corpus = FolderCorpus(root, RATE, holdout=1)
    expected = {"a.WAV", "b.Flac", "sub/c.oga", "d.audio", "e", "f.aiff", "link/deep/linked.flac"}
    assert {row.file for row in corpus.rows} == expected
    assert not corpus.bad
    said = next(record.message for record in caplog.records if "passed over" in record.message)
    assert all(part in said for part in ("7 audio files", "2 .pdf", "1 .txt", "1 hidden"))


def test_a_corpus_that_is_mostly_unreadable_says_so(tmp_path, write, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for i in range(2):
        write(tmp_path / f"{i}.wav")
    for i in range(20):
        (tmp_path / f"{i}.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    corpus = FolderCorpus(tmp_path, RATE, holdout=0)
    assert any("20 of 22" in record.message and "PyAV" in record.message for record in caplog.records)
    with pytest.raises(CorpusError, match="20 of 22"):
        ReadErrors(corpus.size).add(corpus.bad)


TABLES = {
    "comma.csv": "file,speaker,text\nsub/a.wav,s1,one\nb.wav,s2,two\n",
    "semicolon.csv": "Path;speaker;text\nsub/a.wav;s1;one\nb.wav;s2;two\n",
    "tab.tsv": 'filename\tspeaker\ttext\tn\nsub/a.wav\ts1\t"one\t1\nb.wav\ts2\ttwo\t2\n',
    "bar.csv": "wav|speaker|text\nsub/a.wav|s1|one\nb.wav|s2|two\n",
    "absolute.csv": "file,speaker,text\nROOT/sub/a.wav,s1,one\nROOT/b.wav,s2,two\n",
    "windows.csv": "file,speaker,text\r\nsub\\a.wav,s1,one\r\nb.wav,s2,two\r\n",
    "nemo.json": '{"audio_filepath": "ROOT/sub/a.wav", "duration": 1.0, "text": "one", "speaker": "s1"}\n'
    '{"audio_filepath": "b.wav", "duration": 1.0, "text": "two", "speaker": "s2", "lang": null}\n',
    "numbers.jsonl": '{"file": "sub/a.wav", "speaker": 1, "text": null}\n\n{"file": "b.wav", "speaker": 2}\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_other_tools_are_manifests(tmp_path, write, name):
    for file in ("sub/a.wav", "b.wav", "unlisted.wav"):
        write(tmp_path / "speech" / file)
    (tmp_path / "link").symlink_to(tmp_path / "speech")
    for root in (tmp_path / "speech", tmp_path / "link"):
        (tmp_path / name).write_text(TABLES[name].replace("ROOT", str(root)))
        corpus = FolderCorpus(root, RATE, manifest=tmp_path / name)
        assert [row.file for row in corpus.rows] == ["sub/a.wav", "b.wav"]
        assert len({row.speaker for row in corpus.rows}) == 2


def test_a_manifest_that_cannot_be_used_names_the_way_out(tmp_path, write):
    write(tmp_path / "a.wav")
    for text in (
        "id,start,end\n1,2,3\n",
        "file\n/elsewhere/a.wav\n",
        '{"audio_filepath": "a.wav"}\n[1]\n',
        '{"path": "a.wav", "offset": 2.5}\n',
    ):
        (tmp_path / "manifest.csv").write_text(text)
        with pytest.raises(CorpusError, match="manifest") as caught:
            FolderCorpus(tmp_path, RATE)
        assert len(str(caught.value)) < 500
        assert FolderCorpus(tmp_path, RATE, manifest="none").size == 1
