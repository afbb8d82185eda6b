"""Crops longer than a recording: more speech of the same speaker, else the recording again, and never silence."""

import logging
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch

from codec.data.codec_datamodule import SpeechData
from codec.data.filling import filled
from codec.data.folder import FolderCorpus
from codec.data.hf_stream import StreamCrops
from codec.data.shard_corpus import ShardCorpus
from tests.helpers.listener import fit
from tests.helpers.shards import packed

RATE = 16_000
SIZE = 8000  # of a crop; recordings have 2000 to 3100


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three speakers of four recordings; every sample of speaker s is 0.1 (s + 1), and phone sK begins at 0.05 s."""
    root = tmp_path_factory.mktemp("short")
    lines = ["file,speaker,text,phones"]
    for n in range(12):
        soundfile.write(root / f"{n}.wav", np.full(2000 + 100 * n, 0.1 * (n % 3 + 1)), RATE, subtype="FLOAT")
        lines.append(f"{n}.wav,s{n % 3},text {n},a@0.0 s{n}@0.05")
    (root / "manifest.csv").write_text("\n".join(lines))
    return root


def folder(source, **options):
    return FolderCorpus(source, RATE, holdout=0, **options)


@pytest.fixture(params=["folder", "shards"])
def corpus(request, source, tmp_path):
    return folder(source) if request.param == "folder" else ShardCorpus(packed(source, tmp_path / "s", holdout=0), RATE)


def test_a_crop_goes_on_with_the_same_speaker_alone(corpus):
    crops = corpus.crops(SIZE, 0)
    for n in range(24):
        item = crops[n]
        level = 0.1 * (int(item["speaker"][1:]) + 1)
        assert item["wav"].shape == (1, SIZE)
        assert item["wav"].max() <= level + 1e-4
        assert ((item["wav"] - level).abs() < 1e-4).float().mean() > 0.8  # the rest are fades
        assert (item["wav"] != 0).all()
        assert item["padding"] == 0
        assert len({*item["text"].replace("text ", "").split()}) >= 3


def test_phones_keep_their_places(source):
    crops = folder(source).crops(SIZE, 0)
    lengths = {f"s{n}": (2000 + 100 * n) / RATE for n in range(12)}
    for n in range(12):
        at = 0.0
        for (first, begin), (symbol, time) in zip(*(crops[n]["phones"][k::2] for k in (0, 1)), strict=False):
            assert first == "a"
            assert (begin, time) == pytest.approx((at, at + 0.05))
            at += lengths[symbol]


def test_a_draw_depends_on_seed_and_number_alone(corpus):
    first, second = corpus.crops(SIZE, 3), corpus.crops(SIZE, 3)
    backwards = {n: second[n] for n in reversed(range(20))}
    assert all(torch.equal(first[n]["wav"], backwards[n]["wav"]) for n in range(20))
    batches = [
        list(islice(SpeechData(corpus, RATE, 0.5, 4, workers=workers).train_dataloader(), 3)) for workers in (0, 2)
    ]
    assert all(torch.equal(one["wav"], two["wav"]) for one, two in zip(*batches, strict=True))


def test_unknown_speakers_are_not_mixed_but_repeated(source):
    (source / "files.csv").write_text("file\n" + "".join(f"{n}.wav\n" for n in range(12)))
    crops = folder(source, manifest=source / "files.csv").crops(SIZE, 0)
    for n in range(12):
        item = crops[n]
        number = int(item["file"].partition(".")[0])
        assert item["wav"].max() == pytest.approx(0.1 * (number % 3 + 1), abs=1e-4)
        assert (item["wav"] != 0).all()
        assert item["padding"] == pytest.approx(1 - (2000 + 100 * number) / SIZE)


def test_phones_are_unknown_if_those_of_a_piece_are():
    piece = {"wav": torch.ones(1, 80), "phones": [("a", 0.0)], "text": "", "speaker": "s", "file": "f"}
    assert filled(piece, [piece], 160, RATE)["phones"] == [("a", 0.0), ("a", 80 / RATE)]
    assert filled(piece, [piece | {"phones": []}], 160, RATE)["phones"] == []
    assert torch.equal(filled(piece, [], 80, RATE)["wav"], piece["wav"])


def test_a_stream_fills_with_what_it_has_read_of_a_speaker(source):
    plain = folder(source)

    class Stream(StreamCrops):
        def _passes(self):
            while True:
                yield from ((plain.recording(i), "") for i in range(12))

    crops = Stream.__new__(Stream)
    crops.corpus = type("Corpus", (), {"sample_rate": RATE, "recording": staticmethod(lambda row, place: row)})
    crops.samples, crops.held_speakers, crops.seed = SIZE, set(), 0
    items = list(islice(crops._crops(np.random.default_rng(0), []), 36))
    assert items[0]["padding"] > 0.5
    assert all(item["padding"] == 0 for item in items[24:])
    assert all(item["wav"].max() <= 0.1 * (int(item["speaker"][1:]) + 1) + 1e-4 for item in items)


def test_the_share_of_repeated_sound_is_in_the_batch_and_said_once(source, tmp_path, caplog):
    (source / "files.csv").write_text("file\n" + "".join(f"{n}.wav\n" for n in range(12)))
    caplog.set_level(logging.WARNING)
    for manifest, said in ((None, 0), (source / "files.csv", 1)):
        caplog.clear()
        data = SpeechData(folder(source, manifest=manifest), RATE, 0.5, 8, workers=0)
        fit(data, 6, tmp_path)
        assert sum("segment" in record.getMessage() for record in caplog.records) == said
    assert next(iter(data.train_dataloader()))["padding"].mean() > 0.5


def test_a_short_validation_clip_is_no_silence(source):
    data = SpeechData(FolderCorpus(source, RATE, holdout=0.25), RATE, 0.5, 4, workers=0)
    for batch in data.val_dataloader():
        assert batch["wav"].shape[-1] == SIZE
        assert (batch["wav"] != 0).all()
