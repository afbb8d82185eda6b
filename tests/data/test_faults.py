"""Recordings that are broken, come and go while training, and a network that misbehaves."""

import contextlib
import itertools
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from codec.data import audio
from codec.data.audio import AudioError
from codec.data.base import CorpusError
from codec.data.codec_datamodule import SpeechData
from codec.data.folder import FolderCorpus
from codec.latents.audio_files import FileError, read_blocks
from codec.training.callbacks.progress import Throughput
from tests.helpers.listener import Listener, fit
from tests.helpers.signals import speechlike

RATE = 16_000


def truncated(path: Path, write) -> None:
    whole = write(path, 3.0).read_bytes()
    path.write_bytes(whole[: len(whole) // 3])


def endless(path: Path, write) -> None:
    """A FLAC file whose header claims 2^36 - 1 samples: 36 bits of STREAMINFO, from the middle of byte 21 on."""
    content = bytearray(write(path, 0.5).read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)


def spoilt_middle(path: Path, write) -> None:
    content = bytearray(write(path, 3.0).read_bytes())
    content[len(content) // 3 : len(content) // 3 + 4000] = os.urandom(4000)
    path.write_bytes(content)


BROKEN = {
    "empty.wav": lambda path, write: path.write_bytes(b""),
    "text.mp3": lambda path, write: path.write_text("no audio"),
    "noise.ogg": lambda path, write: path.write_bytes(os.urandom(5000)),
    "truncated.flac": truncated,
    "endless.flac": endless,
    "middle.flac": spoilt_middle,
    "nan.wav": lambda path, write: soundfile.write(path, np.full(RATE, np.nan), RATE, subtype="FLOAT"),
    "loud.wav": lambda path, write: soundfile.write(path, np.full(RATE, 3000.0), RATE, subtype="FLOAT"),
    "silent.wav": lambda path, write: soundfile.write(path, np.zeros(0), RATE),
    "folder.wav": lambda path, write: path.mkdir(),
    "dangling.wav": lambda path, write: path.symlink_to("nowhere.wav"),
    "ring.wav": lambda path, write: path.symlink_to(path.name),
    "pipe.wav": lambda path, write: os.mkfifo(path),
    "rate.wav": lambda path, write: soundfile.write(path, np.zeros(100), 7),
}
SKIPPED = set(BROKEN) - {"folder.wav"}  # a folder is one to look into


@pytest.fixture
def spoilt(tmp_path, write) -> Path:
    """Every kind of broken file among 160 good ones."""
    root = tmp_path / "speech"
    for i in range(160):
        write(root / f"{i}.wav", 0.3, seed=i)
    for name, make in BROKEN.items():
        make(root / name, write)
    return root


@pytest.mark.parametrize("rank", [0, 1])
def test_every_kind_of_broken_file_is_skipped_by_two_workers_of_two_ranks(spoilt, rank):
    module = SpeechData(FolderCorpus(spoilt, RATE, holdout=0.02), RATE, 0.25, 8, workers=2)
    module.trainer = SimpleNamespace(global_rank=rank, world_size=2, global_step=0, accumulate_grad_batches=1)
    module.setup("fit")
    heard, batches = set(), 0
    for batch in itertools.islice(module.train_dataloader(), 40):
        module.on_before_batch_transfer(batch, 0)
        assert batch["wav"].shape == (8, 1, 4000)
        assert batch["wav"].abs().max() <= 1
        heard |= set(batch["file"])
        batches += 1
    assert batches == 40
    assert not heard & (SKIPPED - {"middle.flac", "truncated.flac"})  # parts of these may be sound
    bad = set(module.read_errors.bad)
    assert {"empty.wav", "text.mp3", "noise.ogg", "silent.wav", "dangling.wav", "pipe.wav"} <= bad <= SKIPPED


@pytest.mark.parametrize("name", sorted(SKIPPED - {"middle.flac"}))
def test_a_broken_file_is_one_sentence(tmp_path, write, name):
    BROKEN[name](tmp_path / name, write)
    if name == "pipe.wav":
        with pytest.raises(CorpusError, match="is no regular file"):
            FolderCorpus(tmp_path, RATE)
        return
    with pytest.raises(AudioError) as error:
        audio.read(tmp_path / name, RATE)
    assert "\n" not in str(error.value)


def test_files_that_vanish_or_shrink_while_training_are_skipped_and_named_once(folder, tmp_path, caplog, write):
    corpus = FolderCorpus(folder, RATE, holdout=0)
    module = SpeechData(corpus, RATE, 0.25, 4, workers=2)
    module.read_errors.size = 1000  # two of ten would end the run, as they should

    class Thief(Listener):
        def training_step(self, batch, number):
            if number == 3:
                os.remove(folder / "part1" / "9.flac")
                write(folder / "short.flac", 0.02).replace(folder / "part0" / "8.flac")
                write(folder / "new.flac", 1.0)
            return super().training_step(batch, number)

    with caplog.at_level(logging.WARNING):
        _, listener = fit(module, 40, tmp_path, listener=Thief())
    assert len(listener.heard) == 40
    named = [r.message for r in caplog.records if r.message.startswith("skipped")]
    assert len(named) == len(set(named)) == 2
    assert any("9.flac: is missing" in line for line in named)
    assert any("8.flac: " in line for line in named)


def test_a_folder_that_grows_is_the_same_until_the_next_start(folder, write):
    corpus = FolderCorpus(folder, RATE, holdout=0)
    crops = corpus.crops(4000, 0)
    before = [crops[n]["file"] for n in range(40)]
    write(folder / "new.flac", 2.0)
    assert [crops[n]["file"] for n in range(40)] == before
    assert FolderCorpus(folder, RATE, holdout=0).size == corpus.size + 1


def test_a_folder_that_goes_away_ends_in_a_sentence(folder, tmp_path):
    module = SpeechData(FolderCorpus(folder, RATE, holdout=0), RATE, 0.25, 4, workers=1)
    shutil.rmtree(folder)
    with pytest.raises(CorpusError, match="cannot be read") as error:
        fit(module, 20, tmp_path)
    assert "\n" not in str(error.value)


# Waiting


@pytest.mark.parametrize("slow", [True, False])
def test_a_slow_reader_is_one_line(folder, tmp_path, caplog, monkeypatch, slow):
    clock = itertools.count()
    waits = Throughput(share=0.3, window=5)
    now = [0.0]
    monkeypatch.setattr("codec.training.callbacks.progress.perf_counter", lambda: now[0])
    trainer = SimpleNamespace(log_every_n_steps=10**9, is_global_zero=True, world_size=1)
    task = SimpleNamespace(seconds=lambda batch: 1.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(40):
            now[0] += 0.1 if slow else 0.01  # until there is a batch
            waits.on_train_batch_start()
            now[0] += 0.1
            waits.on_train_batch_end(trainer, task, None, None, next(clock))
            if not slow:
                waits.on_validation_start()
                now[0] += 10
    lines = [r.message for r in caplog.records if "bottleneck" in r.message]
    assert len(lines) == slow


def claiming(path: Path, write, hours: float) -> None:
    """A FLAC file of half a second whose header claims hours: 36 bits of STREAMINFO, as in `endless`."""
    content, samples = bytearray(write(path, 0.5).read_bytes()), round(hours * 3600 * RATE)
    content[21] = content[21] & 0xF0 | samples >> 32
    content[22:26] = (samples % 2**32).to_bytes(4, "big")
    path.write_bytes(content)


def test_a_header_that_claims_most_of_the_corpus_is_one_file_skipped(folder, write):
    """Nearly all slots are its own: whoever replaces it by another slot would meet it again, and give up."""
    claiming(folder / "hours.flac", write, 90.0)
    corpus = FolderCorpus(folder, RATE, holdout=0)
    assert not corpus.bad
    crops = corpus.crops(4000, 0)
    drawn = [crops[n] for n in range(300)]
    assert {file for item in drawn for file, _ in item["skipped"]} == {"hours.flac"}
    assert len({item["file"] for item in drawn}) == 10


def test_an_mp3_that_ends_elsewhere_than_it_says_is_one_sentence(tmp_path):
    """libsndfile then gives nothing for ever, or is beyond its own end: soundfile waits, or has an error of NumPy's."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, speechlike(1.0, RATE, 1), RATE)
    content = path.read_bytes()
    claims = bytearray(content)
    claims[21] = 8  # among the samples that its Xing header counts: 77 billion
    path.write_bytes(claims)
    with pytest.raises(FileError, match="is truncated: 16"):
        list(read_blocks(path, RATE))
    path.write_bytes(content[:1067] + b"9" * 400 + content[1068:])
    for start in range(0, RATE, 1000):
        with contextlib.suppress(AudioError):
            assert len(audio.read(path, RATE, start, 4000)) <= 4000


def test_numbers_that_are_none_are_not_encoded(tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    with pytest.raises(FileError, match="has NaN or infinite samples"):
        list(read_blocks(tmp_path / "nan.wav", RATE))
