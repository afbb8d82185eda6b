"""Unreadable recordings: each kind is one sentence, skipped, named and counted, also when it appears while training."""

import contextlib
import itertools
import logging
import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import CorpusError, readable
from codec.data.codec_datamodule import SpeechData
from codec.data.folder import FolderCorpus
from tests.helpers.listener import Listener, fit
from tests.helpers.signals import speechlike

RATE = 16_000


def truncated(path, write):
    whole = write(path, 3.0).read_bytes()
    path.write_bytes(whole[: len(whole) // 3])


def claiming(samples):
    """A FLAC file of half a second whose header claims so many: 36 bits of STREAMINFO from the middle of byte 21 on."""

    def make(path, write):
        content = bytearray(write(path, 0.5).read_bytes())
        content[21] = content[21] & 0xF0 | samples >> 32
        content[22:26] = (samples % 2**32).to_bytes(4, "big")
        path.write_bytes(content)

    return make


def noisy_middle(path, write):
    content = bytearray(write(path, 3.0).read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4000] = os.urandom(4000)
    path.write_bytes(content)


def floats(value):
    return lambda path, write: soundfile.write(path, np.full(RATE, value), RATE, subtype="FLOAT")


BROKEN = {  # name: (word of the reason, how it is made)
    "empty.wav": ("decoded", lambda path, write: path.write_bytes(b"")),
    "text.mp3": ("decoded", lambda path, write: path.write_text("no audio" * 99)),
    "noise.ogg": ("decoded", lambda path, write: path.write_bytes(os.urandom(5000))),
    "truncated.flac": ("lost sync|truncated", truncated),
    "endless.flac": ("hours", claiming(2**36 - 1)),
    "middle.flac": ("", noisy_middle),
    "nan.wav": ("NaN", floats(np.nan)),
    "inf.wav": ("infinite", floats(np.inf)),
    "loud.wav": ("full scale", floats(3000.0)),
    "silent.wav": ("no samples", lambda path, write: soundfile.write(path, np.zeros(0), RATE)),
    "dangling.wav": ("missing", lambda path, write: path.symlink_to("nowhere.wav")),
    "ring.wav": ("missing", lambda path, write: path.symlink_to(path.name)),
    "rate.wav": ("sample rate of 7 Hz", lambda path, write: soundfile.write(path, np.zeros(100), 7)),
}
PLACES = {"folder.wav": lambda path, write: path.mkdir(), "pipe.wav": lambda path, write: os.mkfifo(path)}


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - {"middle.flac"}))
def test_the_error_names_file_and_fault(tmp_path, write, name):
    word, make = BROKEN[name]
    make(tmp_path / name, write)
    with pytest.raises(AudioError, match=word) as caught:
        audio.read(tmp_path / name, RATE, name="the file")
    assert pickle.loads(pickle.dumps(caught.value)).file == "the file"  # it crosses processes
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rank", [0, 1])
def test_every_kind_is_skipped_by_two_workers_of_two_ranks(tmp_path, write, rank):
    for i in range(160):
        write(tmp_path / f"{i}.wav", 0.3, seed=i)
    for name, make in ({name: make for name, (_, make) in BROKEN.items()} | PLACES).items():
        make(tmp_path / name, write)
    data = SpeechData(FolderCorpus(tmp_path, RATE, holdout=0.02), RATE, 0.25, 8, workers=2)
    data.trainer = SimpleNamespace(
        global_rank=rank,
        is_global_zero=rank == 0,
        world_size=2,
        global_step=0,
        accumulate_grad_batches=1,
        training=True,
    )
    data.setup("fit")
    files, batches = set(), list(itertools.islice(data.train_dataloader(), 30))
    for batch in batches:
        data.on_before_batch_transfer(batch, 0)
        assert batch["wav"].shape == (8, 1, 4000)
        assert batch["wav"].abs().max() <= 1
        files |= set(batch["file"])
    assert len(batches) == 30
    assert not files & (BROKEN.keys() - {"middle.flac", "truncated.flac"})  # parts of these are sound
    bad = set(data.read_errors.bad)
    assert {"empty.wav", "text.mp3", "noise.ogg", "silent.wav", "dangling.wav", "pipe.wav"} <= bad
    assert bad <= BROKEN.keys() | {"pipe.wav"}


def test_unreadable_files_are_reported_and_replaced(folder):
    (folder / "text.wav").write_text("no audio")
    floats(np.nan)(folder / "nan.wav", None)
    corpus = FolderCorpus(folder, RATE, holdout=0)
    assert corpus.size == 12
    assert [file for file, _ in corpus.bad] == ["text.wav"]
    crops = corpus.crops(4000, 0)
    items = [crops[n] for n in range(crops.slots)]
    assert {file for item in items for file, _ in item["skipped"]} == {"nan.wav"}
    assert all(item["file"] != "nan.wav" and item["wav"].isfinite().all() for item in items)
    skipped = []
    assert len(list(readable(FolderCorpus(folder, RATE, holdout=1).clips("test"), skipped))) == 10
    assert skipped == [("nan.wav", "has NaN or infinite samples")]


def test_a_header_that_claims_most_of_the_corpus_is_one_file_skipped(folder, write):
    """Nearly all slots are its own: its replacement is another recording, not another slot."""
    claiming(90 * 3600 * RATE)(folder / "hours.flac", write)
    corpus = FolderCorpus(folder, RATE, holdout=0)
    assert not corpus.bad
    crops = corpus.crops(4000, 0)
    items = [crops[n] for n in range(200)]
    assert {file for item in items for file, _ in item["skipped"]} == {"hours.flac"}
    assert len({item["file"] for item in items}) == 10


def test_files_that_vanish_or_shrink_while_training_are_skipped_and_named_once(folder, tmp_path, caplog, write):
    data = SpeechData(FolderCorpus(folder, RATE, holdout=0), RATE, 0.25, 4, workers=2)
    data.read_errors.size = 1000  # two of ten would end the run

    class Thief(Listener):
        def training_step(self, batch, number):
            if number == 3:
                os.remove(folder / "part1" / "9.flac")
                write(folder / "short.flac", 0.02).replace(folder / "part0" / "8.flac")
            return super().training_step(batch, number)

    with caplog.at_level(logging.WARNING):
        _, listener = fit(data, 40, tmp_path, listener=Thief())
    assert len(listener.heard) == 40
    named = [r.message for r in caplog.records if r.message.startswith("skipped")]
    assert len(named) == len(set(named)) == 2
    assert any("9.flac: is missing" in line for line in named)


def test_a_folder_that_grows_is_the_same_until_the_next_start(folder, write):
    corpus = FolderCorpus(folder, RATE, holdout=0)
    crops = corpus.crops(4000, 0)
    before = [crops[n]["file"] for n in range(40)]
    write(folder / "new.flac", 2.0)
    assert [crops[n]["file"] for n in range(40)] == before
    assert FolderCorpus(folder, RATE, holdout=0).size == corpus.size + 1


def test_a_folder_that_vanishes_is_an_error(folder, tmp_path):
    data = SpeechData(FolderCorpus(folder, RATE, holdout=0), RATE, 0.25, 4, workers=1)
    shutil.rmtree(folder)
    with pytest.raises(CorpusError, match="cannot be read") as error:
        fit(data, 20, tmp_path)
    assert "\n" not in str(error.value)


def test_an_mp3_with_a_false_length_ends(tmp_path):
    """libsndfile returns nothing for ever, or is beyond its own end: soundfile loops, or NumPy raises."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, speechlike(1.0, RATE, 1), RATE)
    content = path.read_bytes()
    claims = bytearray(content)
    claims[21] = 8  # among the samples that its Xing header counts: 77 billion
    with audio.opened(bytes(claims), "a", np.inf) as file, pytest.raises(AudioError, match="is truncated: 16"):
        list(audio.blocks(file, 0, file.frames, "a"))
    path.write_bytes(content[:1067] + b"9" * 400 + content[1068:])
    for start in range(0, RATE, 1000):
        with contextlib.suppress(AudioError):
            assert len(audio.read(path, RATE, start, 4000)) <= 4000
