"""Shards: draws, resuming, access over a network, memory, and untrusted indices and archives."""

import contextlib
import hashlib
import http.server
import io
import json
import os
import pickle
import tarfile
import tracemalloc
from collections import Counter
from itertools import islice
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from codec.data.audio import AudioError
from codec.data.base import CorpusError
from codec.data.codec_datamodule import SpeechData, collate
from codec.data.folder import FolderCorpus
from codec.data.infinite_datamodule import InfiniteSampler
from codec.data.remote_files import RemoteFolder
from codec.data.shard_corpus import ShardCorpus, unpack
from codec.data.shard_index import INDEX, RECORDING, Index, Shard, save_entries
from tests.helpers.listener import fit
from tests.helpers.shards import changed, packed, served, serving

RATE = 16_000


@pytest.fixture
def shards(folder, tmp_path):
    """The ten recordings of `folder`, two held out, in six shards or so."""
    return packed(folder, tmp_path / "shards", holdout=0.2)


@pytest.fixture
def local(shards):
    return ShardCorpus(shards, RATE).crops(4000, 0)


def drawn(crops, draws):
    return [(crops[n]["file"], crops[n]["wav"].numpy().tobytes()) for n in draws]


def test_a_draw_depends_on_seed_and_number_alone(shards):
    first, second = (ShardCorpus(shards, RATE, window=2).crops(4000, seed=3) for _ in range(2))
    second = pickle.loads(pickle.dumps(second))  # as in a spawned worker
    count = first.slots + 10
    backwards = dict(zip(reversed(range(count)), drawn(second, reversed(range(count))), strict=True))
    assert drawn(first, range(count)) == [backwards[n] for n in range(count)]
    other = ShardCorpus(shards, RATE, window=2).crops(4000, seed=4)
    assert drawn(first, range(10)) != drawn(other, range(10))


@pytest.mark.parametrize("window", [1, 3, 100])
def test_each_epoch_has_every_slot_once_in_a_new_order(shards, folder, window):
    crops = ShardCorpus(shards, RATE, window).crops(4000, 0)
    plain = FolderCorpus(folder, RATE, holdout=0.2).crops(4000, 0)
    assert crops.slots == plain.slots
    wanted = Counter(plain[n]["file"] for n in range(plain.slots))
    epochs = [[crops[n]["file"] for n in range(e * crops.slots, (e + 1) * crops.slots)] for e in range(2)]
    assert all(Counter(epoch) == wanted for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_clips_equal_those_of_the_folder_sample_by_sample(shards, folder):
    corpus, plain = ShardCorpus(shards, RATE), FolderCorpus(folder, RATE, holdout=0.2)
    assert corpus.size == plain.size == 10
    for seconds in (None, 0.25):
        ours, theirs = corpus.clips("val", seconds), plain.clips("val", seconds)
        assert [clip["file"] for clip in ours] == [clip["file"] for clip in theirs]
        assert all(torch.equal(a["wav"], b["wav"]) for a, b in zip(ours, theirs, strict=True))
    crops = corpus.crops(4000, 0)
    assert not {clip["file"] for clip in corpus.clips("val")} & {crops[n]["file"] for n in range(crops.slots)}


def test_ranks_and_workers_divide_an_epoch(shards):
    corpus = ShardCorpus(shards, RATE)
    slots = corpus.crops(4000, 0).slots
    heard = []
    for rank in range(2):
        sampler = islice(iter(InfiniteSampler(lambda: 0, rank, 2)), len(range(rank, slots, 2)))
        loader = DataLoader(corpus.crops(4000, 0), 3, sampler=list(sampler), num_workers=2, collate_fn=collate)
        heard += [wav.numpy().tobytes() for batch in loader for wav in batch["wav"]]
    assert len(set(heard)) == len(heard) == slots


def test_a_resumed_run_continues_with_the_next_draw_also_at_another_batch_size(shards, tmp_path):
    def data(batch_size):
        return SpeechData(ShardCorpus(shards, RATE, window=2), RATE, 0.25, batch_size, workers=0)

    _, whole = fit(data(4), 20, tmp_path)  # two epochs
    trainer, first = fit(data(4), 9, tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    _, rest = fit(data(2), 9 + 22, tmp_path, tmp_path / "a.ckpt")
    assert torch.equal(torch.cat(first.heard + rest.heard), torch.cat(whole.heard))


def test_a_server_with_range_requests_sends_the_recordings_drawn_and_no_more(shards, local):
    with served(shards) as (url, sent):
        corpus = ShardCorpus(url, RATE)
        crops = corpus.crops(4000, 0)
        assert drawn(crops, range(8)) == drawn(local, range(8))
        tars = {path.name: path.stat().st_size for path in shards.glob("*.tar")}
        fetched = [(name, size) for name, size in sent if name in tars]
        assert len(fetched) == 16  # `drawn` reads twice
        assert all(size < tars[name] for name, size in fetched)
        assert corpus.clips("val")[0]["wav"].numel()
        loader = DataLoader(crops, 2, sampler=range(8), num_workers=2, collate_fn=collate)  # in forked workers
        heard = torch.cat([batch["wav"] for batch in loader])
    assert [wav.numpy().tobytes() for wav in heard] == [wav for _, wav in drawn(local, range(8))]


def test_a_server_without_range_requests_needs_a_cache(shards, local, tmp_path):
    with served(shards, ranges=False) as (url, sent):
        with pytest.raises(CorpusError, match=r"dataset\.cache=DIR"):
            ShardCorpus(url, RATE)
        crops = ShardCorpus(url, RATE, cache=tmp_path / "cache").crops(4000, 0)
        assert drawn(crops, range(crops.slots)) == drawn(local, range(crops.slots))
        fetched = Counter(name for name, _ in sent if name.endswith(".tar"))
        assert fetched == Counter(path.name for path in shards.glob("train*.tar"))  # each once
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(fetched)


def test_a_cache_is_bounded_and_verified(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("codec.data.retry.time", SimpleNamespace(sleep=lambda _: None))
    with served(shards) as (url, _):
        crops = ShardCorpus(url, RATE, window=1, cache=tmp_path / "cache", cache_gb=1e-6).crops(4000, 0)
        one = ShardCorpus(shards, RATE, window=1).crops(4000, 0)
        assert drawn(crops, range(crops.slots)) == drawn(one, range(crops.slots))
        assert len(list((tmp_path / "cache").glob("*.tar"))) == 1
        for path in shards.glob("train*.tar"):
            path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(CorpusError, match="sha256"):
            ShardCorpus(url, RATE, cache=tmp_path / "other").crops(4000, 0)[0]
    assert not list((tmp_path / "other").glob("*.tar"))


@contextlib.contextmanager
def endless():
    """(URL of a server that answers everything with zeros without end; MiB sent so far)."""
    sent = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(200):
                    self.wfile.write(bytes(2**20))
                    sent.append(1)

        def log_message(self, *_):
            pass

    with serving(Handler) as url:
        yield url, sent


def test_a_server_that_sends_more_than_requested_is_cut_off(tmp_path):
    with endless() as (url, sent):
        with pytest.raises(CorpusError, match="longer than 1000 bytes"):
            RemoteFolder(url).read(INDEX, 1000)
        with pytest.raises(CorpusError, match="range requests"):
            RemoteFolder(url).read_range("a.tar", 10, 1000, "", 5000)
        with pytest.raises(CorpusError, match="more than the 5000 bytes"):
            RemoteFolder(url, cache=tmp_path / "cache").read_range("a.tar", 10, 1000, "0" * 64, 5000)
        assert len(sent) < 100  # of 600
    assert not list((tmp_path / "cache").glob("*.tar"))


def test_what_a_truncated_shard_lacks_is_empty(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"12345678")
    folder = RemoteFolder(tmp_path)
    assert folder.read_range("a.tar", 6, 4, "", 8) == b"78"
    assert folder.read_range("a.tar", 20, 4, "", 8) == b""


def test_messages_have_no_credentials():
    url = "http://me:SSSS/@SSSS@127.0.0.1:9/x?token=SSSS#y"
    folder = RemoteFolder(url)
    assert folder.url == url
    assert "SSSS" not in folder.label
    assert "127.0.0.1:9/x" in folder.label
    assert RemoteFolder("a/b?c#d@e").label == "a/b?c#d@e"  # a folder


def test_a_server_that_fails_is_tried_again_within_a_limit(shards, local, monkeypatch):
    monkeypatch.setattr("codec.data.retry.time", SimpleNamespace(sleep=lambda _: None))
    with served(shards) as (url, _):
        crops = ShardCorpus(url, RATE).crops(4000, 0)
        files, _ = fsspec.core.url_to_fs(url)  # the one that fsspec keeps for this process
        real, calls = files.get_file, []

        def flaky(*place, **options):
            calls.append(place)
            if len(calls) % 2:
                raise ConnectionError("the line is dead")
            return real(*place, **options)

        with monkeypatch.context() as patch:
            patch.setattr(files, "get_file", flaky)
            assert drawn(crops, range(3)) == drawn(local, range(3))
            patch.setattr(files, "get_file", lambda *_, **__: 1 / 0)
            with pytest.raises(CorpusError, match=r"\.tar cannot be read: division by zero"):
                crops[0]
        with pytest.raises(CorpusError, match="there is no http"):
            ShardCorpus(f"{url}/nowhere", RATE)
    with pytest.raises(CorpusError, match=r"index\.json cannot be read: Cannot connect"):  # the server is gone
        ShardCorpus(url, RATE)


def test_any_file_system_of_fsspec(shards, local, monkeypatch):
    """memory:// stands for s3://, which needs s3fs."""
    files = fsspec.filesystem("memory")
    for path in shards.iterdir():
        files.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    assert drawn(ShardCorpus("memory://bucket", RATE).crops(4000, 0), range(5)) == drawn(local, range(5))

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(CorpusError, match="Install s3fs"):
        ShardCorpus("s3://bucket/shards", RATE)


def simulated(folder, shards, each):
    """An index of shards x each recordings of ten seconds, without the recordings."""
    folder.mkdir(parents=True)
    size = 200_000
    place = np.stack([np.arange(each) * size, np.full(each, size), np.full(each, 160_000), np.full(each, RATE)], axis=1)
    content = save_entries(place, {})
    facts = {"recordings": each, "seconds": 10.0 * each, "bytes": each * size, "sha256": "0" * 64}
    facts["entries"] = hashlib.sha256(content).hexdigest()
    listed = [Shard(name=f"train-{i:06d}", **facts) for i in range(shards)]
    (folder / "entries").write_bytes(content)
    for shard in listed:
        os.link(folder / "entries", folder / f"{shard.name}.entries")
    splits = {"train": list(range(shards)), "val": [], "test": []}
    (folder / INDEX).write_bytes(Index(format="codec-shards", version=1, shards=listed, splits=splits).dump())
    return folder


def peak(folder):
    """Bytes of Python's and NumPy's memory at most, from opening to the middle of an epoch."""
    tracemalloc.start()
    try:
        crops = ShardCorpus(folder, RATE, window=4).crops(RATE, 0)
        for position in range(0, crops.slots, crops.slots // 5):
            crops.locate(position)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_recordings(tmp_path):
    small, large = (peak(simulated(tmp_path / str(n), n, 1000)) for n in (20, 600))
    assert large < small + 600 * 3000  # facts of each shard, and nothing of its recordings


def test_a_broken_recording_is_replaced_and_named(shards):
    corpus = ShardCorpus(shards, RATE)
    shard = corpus.index.shards[corpus.index.splits["train"][0]]
    content = bytearray((shards / f"{shard.name}.tar").read_bytes())
    content[512:520] = bytes(8)  # the beginning of the first FLAC file, behind the header of the tar
    (shards / f"{shard.name}.tar").write_bytes(content)
    crops = corpus.crops(4000, 0)
    items = [crops[n] for n in range(crops.slots)]
    skipped = {file for item in items for file, _ in item["skipped"]}
    assert len(skipped) == 1
    assert not skipped & {item["file"] for item in items}


def archive(*members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


ABOUT = json.dumps({"file": "a", "speaker": "", "text": "", "phones": ""}).encode()
SOUND, FACTS = ("t-000000.flac", b"sound", tarfile.REGTYPE), ("t-000000.json", ABOUT, tarfile.REGTYPE)


def facts(content):
    return archive(SOUND, ("t-000000.json", content, tarfile.REGTYPE))


@pytest.mark.parametrize(
    "data",
    [
        archive(("../../t-000000.flac", b"sound", tarfile.REGTYPE), FACTS),
        archive(("/t-000000.flac", b"sound", tarfile.REGTYPE), FACTS),
        archive(("t-000001.flac", b"sound", tarfile.REGTYPE), FACTS),
        archive(("t-000000.flac", b"", tarfile.SYMTYPE), FACTS),
        archive(("t-000000.flac", b"", tarfile.LNKTYPE), FACTS),
        archive(SOUND, FACTS, ("t-000000.pyd", pickle.dumps(0), tarfile.REGTYPE)),
        archive(SOUND),
        archive(),
        facts(b"{}"),
        facts(b"[" * 100_000),
        facts(ABOUT.replace(b'"a"', b"7")),
        facts(ABOUT.replace(b'"a"', b'"\\ud800"')),
        facts(ABOUT.replace(b'"phones": ""', b'"phones": "a@b"')),
        facts(ABOUT.replace(b'"phones": ""', b'"phones": "a@0.2 b@0.1"')),
        b"",
        b"\0" * 2000,
        b"no tar" * 500,
        archive(SOUND, FACTS)[:700],
    ],
)
def test_an_archive_with_anything_else_is_refused(data):
    assert unpack(archive(SOUND, FACTS), "t", 0).source == b"sound"
    with pytest.raises(AudioError, match=r"where the index says|phones"):
        unpack(data, "t", 0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        *(
            (lambda c, v=v: c["shards"][0].update(name=v), "name")
            for v in ("../x", "/etc/passwd", "pipe:rm -r .", None)
        ),
        *((lambda c, v=v: c["shards"][0].update(recordings=v), "recordings") for v in (10**12, 0, True, 7.5)),
        (lambda c: c["shards"][0].update(bytes=2**60), "bytes"),
        (lambda c: c["shards"][0].update(seconds=float("nan")), "NaN"),
        (lambda c: c["shards"][0].update(seconds=1e9), "seconds"),
        (lambda c: c["shards"][0].update(sha256="x"), "sha256"),
        (lambda c: c["shards"][0].update(entries=3), "entries"),
        (lambda c: c["shards"][0].pop("bytes"), "bytes"),
        (lambda c: c["shards"].append(c["shards"][0]), "twice"),
        (lambda c: c.update(format="other"), "format"),
        (lambda c: c.update(version=2), "version"),
        (lambda c: c.update(shards=[]), "shards"),
        (lambda c: c.update(shards={}), "shards"),
        (lambda c: c["splits"].pop("val"), "splits"),
        *((lambda c, v=v: c["splits"].update(train=v), "train") for v in ([99], [-1], [0, 0])),
        (lambda c: c["splits"].update(train=[0], val=[0]), "held out at once"),
    ],
)
def test_an_index_out_of_bounds_is_refused(shards, change, word):
    changed(shards, change)
    with pytest.raises(CorpusError, match=word) as caught:
        ShardCorpus(shards, RATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 200_000, "\x00", '{"a":[' + "[]," * 3_100_000 + "1]}"])
def test_an_index_of_another_form_is_refused(shards, content):
    (shards / INDEX).write_text(content)
    with pytest.raises(CorpusError, match=r"index\.json cannot be used"):
        ShardCorpus(shards, RATE)


@pytest.mark.parametrize(
    "row",
    [
        (-1, 10, 10, RATE),
        (0, RECORDING + 1, 10, RATE),
        (2**62, 2**62, 10, RATE),
        (0, 10, 0, RATE),
        (0, 10, 10, 0),
        (0, 10, 2**62, RATE),
        (0, 10, 10**12, RATE),
    ],
)
def test_entries_out_of_bounds_are_refused(tmp_path, row):
    with_entries(tmp_path / "a", save_entries(np.array([row] * 3, np.int64), {}))
    with pytest.raises(CorpusError, match=r"places recording 0 outside|has recordings of"):
        ShardCorpus(tmp_path / "a", RATE).crops(4000, 0)


def with_entries(folder, content):
    simulated(folder, 1, 3)
    (folder / "train-000000.entries").write_bytes(content)
    changed(folder, lambda c: c["shards"][0].update(entries=hashlib.sha256(content).hexdigest()))


@pytest.mark.parametrize(
    ("content", "word"), [(b"x" * 100, "damaged"), (save_entries(np.ones((2, 4)), {}), "does not list the 3")]
)
def test_entries_of_another_form_are_refused(tmp_path, content, word):
    with_entries(tmp_path / "a", content)
    with pytest.raises(CorpusError, match=word):
        ShardCorpus(tmp_path / "a", RATE).crops(4000, 0)
    (tmp_path / "a" / "train-000000.entries").write_bytes(b"others")
    with pytest.raises(CorpusError, match="sha256"):
        ShardCorpus(tmp_path / "a", RATE).crops(4000, 0)


def test_missing_files_are_named(tmp_path, shards):
    with pytest.raises(CorpusError, match=r"there is no .*index\.json"):
        ShardCorpus(tmp_path / "nowhere", RATE)
    with pytest.raises(CorpusError, match="window=0"):
        ShardCorpus(shards, RATE, window=0)
    for path in shards.glob("train*.tar"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"there is no .*\.tar"):
        ShardCorpus(shards, RATE).crops(4000, 0)[0]
    changed(shards, lambda content: content["splits"].update(train=[]))
    with pytest.raises(CorpusError, match="no shards for training"):
        ShardCorpus(shards, RATE).crops(4000, 0)
