"""Speakers and files of the held-out parts: in every kind of corpus, none of them is trained on."""

from itertools import islice

import pytest
import soundfile
from datasets import ClassLabel, Dataset, Features, Value

from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.hf import Columns, HubTable, open_hub
from codec.data.mix import MixCorpus
from codec.data.shard_corpus import ShardCorpus
from tests.helpers.shards import packed
from tests.helpers.signals import noise

RATE = 16_000
LIBRISPEECH = [f"train-clean/{s}/{s + 1}/{s}-{s + 1}-{n:04d}.flac" for s in range(19, 32) for n in range(3)]
VCTK = [f"wav48/p{s}/p{s}_{n:03d}.wav" for s in range(225, 235) for n in range(3)]
NAMED = [f"{name}/{name}_{n}.wav" for name in ("anna", "bert", "cleo", "dora") for n in range(3)]
UNNAMED = [f"part{n % 2}/{n}.wav" for n in range(12)]


def tree(root, names):
    for n, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, noise(800, n), RATE)
    return root


def speakers(corpus):
    return [{corpus.recording(i).speaker for i in corpus.splits[part]} for part in ("train", "val", "test")]


def files(corpus, part):
    return {clip["file"] for clip in corpus.clips(part)}


@pytest.mark.parametrize(
    ("names", "level"), [(LIBRISPEECH, "level 2"), ([*VCTK, "README.wav"], "level 2"), (NAMED, "level 1")]
)
def test_a_folder_level_that_looks_like_speakers_holds_out_whole_ones(tmp_path, names, level, caplog):
    caplog.set_level("INFO")
    corpus = FolderCorpus(tree(tmp_path, names), RATE, holdout=0.1, speaker_from="auto")
    train, val, test = speakers(corpus)
    assert min(len(train), len(val), len(test)) > 0
    assert not train & (val | test)
    assert not files(corpus, "val") & files(corpus, "test")
    assert level in corpus.facts()["speakers_from"]
    assert level in caplog.text


@pytest.mark.parametrize(("names", "level"), [(UNNAMED, "auto"), (LIBRISPEECH, None)])
def test_without_speakers_files_are_held_out_and_that_is_said(tmp_path, names, level):
    corpus = FolderCorpus(tree(tmp_path, names), RATE, holdout=0.1, speaker_from=level)
    assert corpus.held_out_by == "file"
    assert "speaker_from" in corpus.facts()["held_out_warning"]
    assert not files(corpus, "val") & files(corpus, "test")


@pytest.mark.parametrize("level", [1, -1])
def test_a_level_counts_from_the_path_or_from_the_file(tmp_path, level):
    corpus = FolderCorpus(tree(tmp_path, UNNAMED), RATE, holdout=0.1, speaker_from=level)
    assert {row.speaker for row in corpus.rows} == {"part0", "part1"}


@pytest.mark.parametrize("level", [3, -4, 0, "speaker", 1.5])
def test_a_level_without_folders_is_refused(tmp_path, level):
    with pytest.raises(CorpusError, match="speaker_from"):
        FolderCorpus(tree(tmp_path, UNNAMED), RATE, speaker_from=level)


@pytest.mark.parametrize(
    "header", ["file, speaker, text", "File,Speaker,Text", " file ,SPEAKERS,text", "file,spk_id,x"]
)
def test_columns_are_found_without_case_and_spaces(tmp_path, header):
    tree(tmp_path, UNNAMED)
    rows = [f"{name}, s{n % 4}, a word" for n, name in enumerate(UNNAMED)]
    (tmp_path / "manifest.csv").write_text("\n".join([header, *rows]))
    corpus = FolderCorpus(tmp_path, RATE, holdout=0.2)
    assert {row.speaker for row in corpus.rows} == {"s0", "s1", "s2", "s3"}
    assert {row.text for row in corpus.rows} == {"" if header.endswith("x") else "a word"}
    assert corpus.held_out_by == "speaker"


def test_a_misspelt_column_is_named(tmp_path, caplog):
    tree(tmp_path, UNNAMED)
    (tmp_path / "manifest.csv").write_text("file,speker\n" + "".join(f"{name},a\n" for name in UNNAMED))
    FolderCorpus(tmp_path, RATE)
    assert "speker" in caplog.text


@pytest.mark.parametrize("kind", [Value("int64"), ClassLabel(names=["a", "b", "c", "d"]), Value("float64")], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_speaker_zero_is_a_speaker(tmp_path, kind, seed):
    tree(tmp_path, UNNAMED)
    content = {"audio": [str(tmp_path / name) for name in UNNAMED], "who": [n % 4 for n in range(12)]}
    table = Dataset.from_dict(content, Features({"audio": Value("string"), "who": kind}))
    corpus = HubTable(table, Columns("audio", speaker="who"), RATE, "table", 0.25, seed)
    train, val, test = speakers(corpus)
    assert len(train | val | test) == 4
    assert not train & (val | test)
    assert corpus.held_out_by == "speaker"


def test_a_stream_trains_on_nobody_who_is_held_out(tmp_path):
    data = {"audio": [], "who": []}
    for n in range(24):
        soundfile.write(tmp_path / f"{n}.wav", noise(4000, n), RATE)
        data["audio"].append(str(tmp_path / f"{n}.wav"))
        data["who"].append(n % 6)
    Dataset.from_dict(data).to_parquet(tmp_path / "hub" / "train.parquet")
    options = {"column": "audio", "sample_rate": RATE, "speaker_column": "who", "streaming": True}
    corpus = open_hub(str(tmp_path / "hub"), held=2, **options)
    held = {clip["speaker"] for part in ("val", "test") for clip in corpus.clips(part)}
    assert held == {"0", "1"}
    assert {item["speaker"] for item in islice(corpus.crops(2000, 0), 300)} == {"2", "3", "4", "5"}
    assert corpus.held_out_by == "speaker"
    everybody = open_hub(str(tmp_path / "hub"), held=6, **options)
    with pytest.raises(CorpusError, match="speaker_column"):
        next(iter(everybody.crops(2000, 0)))


@pytest.mark.parametrize("marked", ["val", "test"])
def test_a_single_marked_part_is_not_shared(tmp_path, marked):
    tree(tmp_path, VCTK)
    rows = [f"{name},{name[6:10]},{marked if n < 6 else ''}" for n, name in enumerate(VCTK)]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,speaker,split", *rows]))
    corpus = FolderCorpus(tmp_path, RATE, holdout=0.1)
    marked_files = {*VCTK[:6]}
    assert files(corpus, marked) <= marked_files
    assert not files(corpus, "val") & files(corpus, "test")
    assert not {corpus.rows[i].file for i in corpus.splits["train"]} & marked_files
    assert corpus.held_out_by == "speaker"
    if marked == "test":
        assert files(corpus, "test") == marked_files


def test_a_corpus_that_is_too_small_for_two_parts_says_so(tmp_path, caplog):
    corpus = FolderCorpus(tree(tmp_path, ["a.wav", "b.wav"]), RATE)
    assert files(corpus, "val") == files(corpus, "test") != {"a.wav", "b.wav"}
    assert "too small" in caplog.text
    one = tmp_path / "one"
    caplog.clear()
    FolderCorpus(tree(one, ["a.wav"]), RATE)
    assert "too small" in caplog.text


def test_shards_and_mixes_say_by_what_is_held_out(tmp_path):
    named, unnamed = tree(tmp_path / "named", VCTK), tree(tmp_path / "unnamed", UNNAMED)
    (named / "manifest.csv").write_text("file,speaker\n" + "".join(f"{name},{name[6:10]}\n" for name in VCTK))
    by_speaker, by_file = (ShardCorpus(packed(f, tmp_path / f"{f.name}-shards"), RATE) for f in (named, unnamed))
    assert (by_speaker.held_out_by, by_file.held_out_by) == ("speaker", "file")
    mixed = MixCorpus({"a": by_speaker, "b": by_file}, {"a": 1, "b": 1})
    assert mixed.facts()["held_out_by"] == "file"
    assert FolderCorpus(unnamed, RATE, holdout=1).held_out_by == "unknown"


def test_runs_and_reports_inside_the_folder_are_no_recordings(tmp_path, caplog):
    caplog.set_level("INFO")
    tree(tmp_path, UNNAMED)
    tree(
        tmp_path / "runs/codec/2026", ["audio/00_a_reference.flac", "audio/00_a_decoded.flac", "eval_last/audio/x.wav"]
    )
    tree(tmp_path / "mine", ["audio/00_a_opus.flac"])
    tree(tmp_path, ["audio/7.wav"])
    for name in ("runs/codec/2026/config.yaml", "runs/codec/2026/parts.json", "mine/a.json", "mine/a.md", "mine/a.csv"):
        (tmp_path / name).write_text("")
    corpus = FolderCorpus(tmp_path, RATE)
    assert {row.file for row in corpus.rows} == {*UNNAMED, "audio/7.wav"}
    assert "2 folders of runs" in caplog.text


@pytest.mark.parametrize("path", ["", " ", None])
def test_an_empty_path_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tree(tmp_path, UNNAMED))
    with pytest.raises(CorpusError, match="empty"):
        FolderCorpus(path, RATE)
    with pytest.raises(CorpusError, match="empty"):
        ShardCorpus(path, RATE)
