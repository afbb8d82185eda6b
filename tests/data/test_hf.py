"""Datasets of the Hub, from a local one with the schema of gpt-omni/VoiceAssistant-400K, as tables and as streams."""

import io
import json
import pickle
import tarfile
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, Features, List, Value
from torch.utils.data import DataLoader

from codec.data.audio import AudioError
from codec.data.base import CorpusError
from codec.data.codec_datamodule import collate
from codec.data.hf import open_hub
from codec.data.hf_columns import Columns
from tests.helpers.hub import STRUCT, flac, hub, question

RATE = 16_000
ALL = {f"question {i}" for i in range(12)}
either = pytest.mark.parametrize("streaming", [False, True], ids=["table", "stream"])


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    """Three files of four recordings."""
    return hub(tmp_path_factory.mktemp("hub"))


def texts(items):
    return {item["text"] for item in items}


@either
@pytest.mark.parametrize("kind", [Audio(), STRUCT], ids=["audio", "struct"])
def test_every_recording_has_its_text_and_is_held_out_or_trained_on(tmp_path, kind, streaming):
    corpus = open_hub(hub(tmp_path, kind), **question(streaming=streaming, held=2, holdout=0.2))
    crops = corpus.crops(4000, 0)
    items = list(islice(crops, 300)) if streaming else [crops[n] for n in range(crops.slots)]
    test, val = (texts(corpus.clips(split)) for split in ("test", "val"))
    assert len(test) == len(val) == (1 if streaming else 2)
    assert not test & val
    assert texts(items) == ALL - test - val
    assert all(item["wav"].shape == (1, 4000) and item["wav"].std() > 0.1 for item in items)
    for clip in corpus.clips("val"):
        seconds = 0.5 + 0.1 * int(clip["text"].split()[1])
        assert clip["wav"].shape[-1] == pytest.approx(seconds * RATE, abs=1)
    assert corpus.clips("val", 0.25)[0]["wav"].shape == (1, 4000)


def test_a_table_draws_by_number_and_caches_its_headers(name, monkeypatch):
    one = open_hub(name, **question()).crops(4000, 1)
    monkeypatch.setattr("codec.data.audio.probe", lambda *_: pytest.fail("read again"))
    two = open_hub(name, **question()).crops(4000, 1)
    later = two[30]
    assert all(torch.equal(one[n]["wav"], two[n]["wav"]) for n in range(10))
    assert torch.equal(one[30]["wav"], later["wav"])


def test_slices_of_a_dataset_have_headers_of_their_own(name):
    first, second = (open_hub(name, **question(split=f"train[{part}]")) for part in (":4", "4:8"))
    assert [c.lengths.tolist() for c in (first, second)] == [[RATE * n // 10 for n in range(k, k + 4)] for k in (5, 9)]
    with pytest.raises(CorpusError, match="corresponds to no data"):
        open_hub(name, **question(split="train[:0]"))


def test_the_order_of_a_stream_depends_on_its_seed_and_continues_when_iterated_again(name):
    corpus = open_hub(name, **question(streaming=True, held=1))
    once, again, other = (corpus.crops(4000, seed) for seed in (0, 0, 1))
    once = [item["text"] for item in islice(once, 60)]
    assert once == [item["text"] for _ in range(2) for item in islice(again, 30)]
    assert once != [item["text"] for item in islice(other, 60)]


@pytest.mark.parametrize("readers", [2, 3, 5])
def test_the_readers_of_a_stream_divide_a_pass(name, readers):
    corpus = open_hub(name, **question(streaming=True, held=1))
    for epoch in range(2):
        places = []
        for rank in range(readers):
            crops = corpus.crops(4000, 0)
            crops.set_reader(rank, readers, 0)
            places += [place for _, place in crops.rows(epoch)]
        assert sorted(places) == [f"{shard}/{row}" for shard in range(3) for row in range(4)][1:]


def test_whole_speakers_are_held_out(name):
    corpus = open_hub(name, **question(speaker_column="answer", holdout=0.2))
    test, val = ({clip["speaker"] for clip in corpus.clips(split)} for split in ("test", "val"))
    crops = corpus.crops(4000, 0)
    assert len(test) == len(val) == 2
    assert not (test | val) & {crops[n]["speaker"] for n in range(crops.slots)}


@either
def test_crops_can_be_pickled_for_a_spawned_worker(name, streaming):
    crops = open_hub(name, **question(streaming=streaming, held=1)).crops(4000, 0)
    one, two = (next(iter(c)) if streaming else c[5] for c in (crops, pickle.loads(pickle.dumps(crops))))
    assert torch.equal(one["wav"], two["wav"])


def test_workers_read_a_stream_together(name):
    corpus = open_hub(name, **question(streaming=True, held=1))
    loader = DataLoader(corpus.crops(4000, 0), 10, num_workers=2, collate_fn=collate)
    assert {text for batch in islice(loader, 30) for text in batch["text"]} == ALL - {"question 0"}


def test_a_stream_continues_at_the_same_row_after_a_failure(name, monkeypatch):
    corpus = open_hub(name, **question(streaming=True, held=1))
    expected = [content["question"] for _, content in corpus.rows(1)]
    whole, opened = corpus.dataset, []

    class Flaky:
        def shard(self, **options):
            opened.append(options)
            self.part = whole.shard(**options)
            return self

        def iter(self, batch_size):
            for i, batch in enumerate(self.part.iter(batch_size=batch_size)):
                if len(opened) == 1 and i == 2:
                    raise ConnectionError("the line is dead")
                yield batch

    corpus.dataset = Flaky()
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert [content["question"] for _, content in corpus.rows(1)] == expected
    assert len(opened) == 2


@either
def test_unreadable_rows_are_skipped_and_named(tmp_path, streaming):
    corpus = open_hub(hub(tmp_path, bad=[0, 7]), **question(streaming=streaming, held=2, holdout=0))
    crops = corpus.crops(4000, 0)
    items = list(islice(crops, 300)) if streaming else [crops[n] for n in range(50)]
    bad = [file for file, _ in corpus.bad] + [file for item in items for file, _ in item["skipped"]]
    assert sorted(set(bad)) == (["0/0:0.flac", "1/3:7.flac"] if streaming else ["row 0:0.flac", "row 7:7.flac"])
    assert not texts(items) & {"question 0", "question 7"}


@either
def test_what_is_missing_is_an_error_that_lists_what_exists(name, tmp_path, streaming):
    for options, word in (
        ({"column": "audio"}, "no column 'audio'; it has .*question_audio"),
        ({"text_column": "words"}, "no column 'words'"),
        ({"split": "test"}, "train"),
    ):
        with pytest.raises(CorpusError, match=word) as caught:
            open_hub(name, **question(streaming=streaming, **options))
        assert "\n" not in str(caught.value)
    for missing in ("nobody/no-such-dataset", str(tmp_path / "nowhere")):
        with pytest.raises(CorpusError, match="cannot open the dataset"):
            open_hub(missing, **question(streaming=streaming))
    with pytest.raises(CorpusError, match=r"none of the .*12 .*cannot be decoded"):
        open_hub(hub(tmp_path / "bad", bad=range(12)), **question(streaming=streaming)).crops(4000, 0)


def test_a_stream_too_short_for_its_held_out_part_is_an_error(name):
    with pytest.raises(CorpusError, match="hold out fewer"):
        open_hub(name, **question(streaming=True, held=13)).crops(4000, 0)
    with pytest.raises(CorpusError, match="nothing left"):
        next(iter(open_hub(name, **question(streaming=True, held=12)).crops(4000, 0)))


def test_a_recording_at_a_url_is_named_without_credentials(monkeypatch):
    url = "https://me:SSSS@host/a.flac?token=SSSS"
    monkeypatch.setattr("codec.data.retry.time.sleep", lambda _: None)

    def fails(path):
        raise ConnectionError(f"cannot reach {path}")

    monkeypatch.setattr("codec.data.hf_columns.fsspec.core.url_to_fs", fails)
    with pytest.raises(AudioError, match="cannot reach https://") as error:
        Columns("audio").recording({"audio": url}, "row 1")
    assert error.value.file == "row 1:a.flac"
    assert "SSSS" not in str(error.value)


def parquet(values, kind=None):
    def make(folder):
        pq.write_table(pa.table({"audio": pa.array(values, kind)}), folder / "train.parquet")

    return make


def columns_of_files(folder):
    """Files beside a table that names them, each by a path within the dataset."""
    for i, data in enumerate(FILES):
        (folder / f"{i}.flac").write_bytes(data)


def csv_of_paths(folder):
    columns_of_files(folder)
    (folder / "train.csv").write_text("audio\n" + "".join(f"{i}.flac\n" for i in range(4)), encoding="utf-8")


def large_strings(folder):
    columns_of_files(folder)
    parquet([str(folder / f"{i}.flac") for i in range(4)], pa.large_string())(folder)


def audio_folder(folder):
    columns_of_files(folder)
    lines = "".join(f"{i}.flac,words {i}\n" for i in range(4))
    (folder / "metadata.csv").write_text(f"file_name,text\n{lines}", encoding="utf-8")


def web_dataset(folder):
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for i, data in enumerate(FILES):
            for kind, content in (("audio.flac", data), ("json", json.dumps({"n": i}).encode())):
                member = tarfile.TarInfo(f"{i:03d}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def list_of_audio(folder):
    features = Features({"audio": List(Audio())})
    table = pa.table({"audio": [[{"bytes": data, "path": None}] for data in FILES]}, schema=features.arrow_schema)
    pq.write_table(table, folder / "train.parquet")


def saved_to_disk(folder):
    Dataset.from_dict({"audio": FILES}, Features({"audio": Value("binary")})).save_to_disk(folder)


WAVS = [soundfile.read(io.BytesIO(flac(0.5, i)), dtype="float32")[0] for i in range(4)]
FILES = [flac(0.5, i) for i in range(4)]
ARRAYS = [{"path": None, "array": wav.tolist(), "sampling_rate": 22_050} for wav in WAVS]
WHOLE_NUMBERS = [{"array": (wav * 32767).astype(int).tolist(), "sampling_rate": 22_050} for wav in WAVS]
CHANNELS = [{"array": [wav.tolist()] * 2, "sampling_rate": 22_050} for wav in WAVS]
SHAPES = {
    "csv_of_paths": csv_of_paths,
    "large_strings": large_strings,
    "audio_folder": audio_folder,
    "web_dataset": web_dataset,
    "list_of_audio": list_of_audio,
    "saved_to_disk": saved_to_disk,
    "large_binary": parquet(FILES, pa.large_binary()),
    "arrays": parquet(ARRAYS),
    "whole_numbers": parquet(WHOLE_NUMBERS),
    "channels": parquet(CHANNELS),
}
UNREADABLE = {
    "numbers without a rate": ([wav.tolist() for wav in WAVS], "list of 11025"),
    "several files": ([[{"bytes": data}] * 2 for data in FILES], "list of 2"),
    "integers": ([1, 2, 3, 4], "neither bytes nor a path"),
    "nothing": ([None] * 4, "neither bytes nor a path"),
    "text": (["a word " * 999] * 4, "6993 characters"),
    "escaped bytes": ([repr(data) for data in FILES], "characters|cannot be opened"),
    "no rate": ([{"array": [0.0, 0.1], "sampling_rate": None}] * 4, "no waveform"),
    "a matrix of words": ([{"array": ["a", "b"], "sampling_rate": 8000}] * 4, "no waveform"),
}


@either
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_a_column_is_read(tmp_path, shape, streaming, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("tried again"))
    SHAPES[shape](tmp_path)
    column = "audio.flac" if shape == "web_dataset" else "audio"
    corpus = open_hub(str(tmp_path), column, 22_050, streaming=streaming, held=3, holdout=1)
    clips = [*corpus.clips("val"), *corpus.clips("test")]
    assert not corpus.bad
    assert len(clips) >= 3
    for clip in clips:
        wav = clip["wav"][0].numpy()
        assert min(np.abs(wav - other).max() for other in WAVS) < 1e-4


@either
@pytest.mark.parametrize("shape", UNREADABLE)
def test_what_is_no_audio_is_one_short_sentence_at_once(tmp_path, shape, streaming, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("tried again"))
    values, word = UNREADABLE[shape]
    parquet(values)(tmp_path)
    with pytest.raises(CorpusError, match=word) as caught:
        open_hub(str(tmp_path), "audio", 16_000, streaming=streaming, held=1, holdout=1).clips("val")
    assert len(str(caught.value)) <= 500
    assert str(caught.value).isprintable()


def test_files_of_a_dataset_that_differ_are_named_as_the_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("tried again"))
    for name, column in (("train-0", "x"), ("train-1", "y")):
        pq.write_table(pa.table({"audio": FILES, column: [1] * 4}), tmp_path / f"{name}.parquet")
    with pytest.raises(CorpusError, match="columns") as caught:
        open_hub(str(tmp_path), "audio", 16_000)
    assert "network" not in str(caught.value)
