"""Batches: workers, ranks, resuming, and the limit of unreadable files."""

import logging
import shutil
from itertools import chain, islice
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import soundfile
import torch

from codec.data.augment import Augment
from codec.data.base import CorpusError
from codec.data.codec_datamodule import SpeechData
from codec.data.folder import FolderCorpus
from codec.data.hf import HubTable
from codec.data.hf_columns import Columns
from codec.data.infinite_datamodule import InfiniteSampler, check_shared_memory
from codec.data.mix import MixCorpus
from codec.data.read_errors import ReadErrors
from codec.data.shard_corpus import ShardCorpus
from codec.utils.errors import InputError
from tests.helpers.listener import fit
from tests.helpers.shards import packed

RATE = 16_000


def data(folder, **options):
    options = {"segment": 0.25, "batch_size": 4, "workers": 0} | options
    return SpeechData(FolderCorpus(folder, RATE, holdout=options.pop("holdout", 0.2)), RATE, **options)


def test_a_batch_keeps_the_contract(folder):
    batch = next(iter(data(folder).train_dataloader()))
    assert batch["wav"].shape == (4, 1, 4000)
    assert batch["wav"].dtype == torch.float32
    assert all(len(batch[name]) == 4 for name in ("speaker", "text", "phones", "file"))
    assert batch["skipped"] == []


@pytest.mark.parametrize("augment", [None, Augment()], ids=["plain", "augmented"])
def test_two_workers_equal_none(folder, augment):
    batches = [list(islice(data(folder, workers=w, augment=augment).train_dataloader(), 8)) for w in (0, 2)]
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one["wav"], two["wav"])
        assert one["file"] == two["file"]


def test_ranks_divide_the_draws():
    draws = [list(islice(InfiniteSampler(lambda: 10, rank, 3), 20)) for rank in range(3)]
    assert sorted(chain.from_iterable(draws)) == list(range(10, 70))


@pytest.mark.parametrize(("accumulate", "batch_size"), [(1, 4), (2, 4), (1, 2)])
def test_a_resumed_run_continues_with_the_next_draw(folder, tmp_path, accumulate, batch_size):
    options = {"accumulate_grad_batches": accumulate}
    _, whole = fit(data(folder), 6, tmp_path, **options)
    trainer, first = fit(data(folder), 4, tmp_path, **options)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    steps = 4 + 2 * 4 // batch_size
    _, rest = fit(data(folder, batch_size=batch_size), steps, tmp_path, tmp_path / "a.ckpt", **options)
    heard = torch.cat(first.heard + rest.heard)
    assert len(heard) == 6 * 4 * accumulate
    assert torch.equal(heard, torch.cat(whole.heard))


def test_shortened_epochs_do_not_repeat(folder, tmp_path):
    _, whole = fit(data(folder), 6, tmp_path)
    _, short = fit(data(folder, workers=1), 6, tmp_path, limit_train_batches=2)
    assert torch.equal(torch.cat(short.heard), torch.cat(whole.heard))


def test_draws_follow_the_number_of_ranks(folder):
    module = data(folder)
    module.trainer = SimpleNamespace(global_step=10, world_size=8, accumulate_grad_batches=3)
    assert module.draws() == 10 * 8 * 3 * 4
    saved = module.state_dict()
    module.load_state_dict(saved)
    module.trainer = SimpleNamespace(global_step=11, world_size=2, accumulate_grad_batches=1)
    assert module.draws() == saved["draws"] + 8


def test_validation_hears_the_held_out_clips_in_order(folder, tmp_path):
    module = data(folder, val_clips=1, val_seconds=0.5)
    _, listener = fit(module, 4, tmp_path, val_check_interval=2, check_val_every_n_epoch=None)
    clips = module.corpus.clips("val")
    assert listener.validated == [clips[0]["file"]] * 2
    assert len(clips) == 2


def test_short_clips_are_padded_to_a_segment(tmp_path, write):
    for i in range(4):
        write(tmp_path / f"{i}.wav", 0.005, seed=i)
    assert [batch["wav"].shape for batch in data(tmp_path).val_dataloader()] == [(1, 1, 4000)]


def test_without_held_out_clips_there_is_no_validation(folder, tmp_path):
    _, listener = fit(data(folder, holdout=0), 2, tmp_path, val_check_interval=1, check_val_every_n_epoch=None)
    assert len(listener.heard) == 2
    assert not listener.validated


def damage(folder, count):
    for i in range(count):
        soundfile.write(folder / f"bad{i}.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")


@pytest.mark.parametrize("workers", [0, 2])
def test_one_unreadable_file_is_named_once_counted_and_skipped(folder, tmp_path, caplog, workers):
    damage(folder, 1)
    with caplog.at_level(logging.WARNING):
        _, listener = fit(data(folder, holdout=0, batch_size=8, workers=workers), 20, tmp_path)
    named = [record.message for record in caplog.records if record.message.startswith("skipped")]
    assert named == ["skipped bad0.wav: has NaN or infinite samples"]
    assert caplog.records[-1].message.startswith("1 of 11 recordings")
    assert len(listener.heard) == 20
    assert all(torch.isfinite(wav).all() for wav in listener.heard)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_unreadable_files_end_the_run(folder, tmp_path, workers):
    damage(folder, 3)
    with pytest.raises(CorpusError, match="3 of 13 recordings cannot be read") as caught:
        fit(data(folder, holdout=0, batch_size=8, workers=workers), 50, tmp_path)
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder)
    folder.mkdir()
    damage(folder, 4)
    with pytest.raises(CorpusError, match="in a row") as caught:
        fit(data(folder, holdout=0, workers=workers), 5, tmp_path)
    assert "\n" not in str(caught.value)


def test_unreadable_headers_count_before_training(folder):
    for i in range(3):
        (folder / f"text{i}.wav").write_text("no audio")
    with pytest.raises(CorpusError, match="3 of 13"):
        data(folder).setup("fit")


def test_read_errors_tolerate_two_in_a_small_folder_and_a_tenth_of_a_stream():
    small = ReadErrors(5)
    small.add([("a", "is missing"), ("b", "is missing"), ("a", "is missing")])
    assert len(small.bad) == 2
    assert "2 of 5" in small.summary()
    with pytest.raises(CorpusError):
        small.add([("c", "is missing")])
    with pytest.raises(CorpusError):
        ReadErrors(1).add([("a", "is missing")])
    stream = ReadErrors(None)
    stream.add([(f"bad{i}", "x") for i in range(25)], [f"good{i}" for i in range(150)])
    with pytest.raises(CorpusError, match="of 200 recordings"):
        stream.add([], [f"good{i}" for i in range(175)])


def corpora(folder, tmp_path, rate: int):
    """The same recordings in a folder, in shards, as a table, and half of a mix."""
    files = FolderCorpus(folder, rate, holdout=0.2)
    shards = ShardCorpus(packed(folder, tmp_path / "shards", holdout=0.2), rate)
    table = datasets.Dataset.from_dict({"audio": [str(path) for path in sorted(folder.rglob("*.flac"))]})
    table = HubTable(table, Columns("audio"), rate, "table", 0.2, 0)
    return [files, shards, table, MixCorpus({"a": files, "b": table}, {"a": 1.0, "b": 1.0})]


def test_recordings_below_the_codecs_rate_are_counted_and_said_once(folder, write, tmp_path, caplog):
    for number in range(3):
        write(folder / f"high{number}.flac", 0.5, 24_000, seed=number)
    counts = []
    for corpus in corpora(folder, tmp_path, 24_000):
        caplog.clear()
        SpeechData(corpus, 24_000, 0.25, 4, workers=0).train_dataloader()
        (line,) = [record.getMessage() for record in caplog.records if "upsampled" in record.getMessage()]
        assert corpus.warnings()["upsampled"] in line
        counts.append(corpus.upsampled)
    of_shards = 10 - sum(name.startswith("part") for name in held_out(folder))  # those that training reads
    assert counts == [10, of_shards, 10, 20]
    for corpus in corpora(folder, tmp_path / "low", 16_000):
        corpus.crops(4000, 0)
        assert "upsampled" not in corpus.facts()


def held_out(folder) -> list[str]:
    corpus = FolderCorpus(folder, 16_000, holdout=0.2)
    return [clip["file"] for split in ("val", "test") for clip in corpus.clips(split)]


def test_another_rate_than_the_codecs_is_refused(folder):
    with pytest.raises(CorpusError, match="16000 Hz and the codec at 24000"):
        SpeechData(FolderCorpus(folder, RATE), 24_000)


def test_batches_that_shared_memory_cannot_hold_are_refused(monkeypatch):
    """Loader processes would wait for ever in a container with 64 MB; each piece of advice is enough."""
    usage = SimpleNamespace(free=64 * 10**6)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    megabyte = 10**6
    with pytest.raises(InputError, match="shm-size=3g") as caught:
        check_shared_memory(32, 16, megabyte)
    assert "data.workers=0" in str(caught.value)
    check_shared_memory(0, 16, megabyte)
    check_shared_memory(1, 16, megabyte)
    check_shared_memory(8, 3, megabyte)
    usage.free = 2 * 10**9
    check_shared_memory(32, 16, megabyte)
