"""python -m codec extract: the same tokens whoever makes them, however often they are killed."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import save

from codec.__main__ import main
from codec.checkpoints.load import load_codec
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.shard_corpus import ShardCorpus
from codec.data.work_units import cut
from codec.latents.extract import TokenExtractor, extract, read_token_shard
from codec.latents.shard_file import checksum
from codec.latents.token_file import TokenError, codebook_fingerprint
from codec.model import Codec
from tests.checkpoints.test_load import saved
from tests.helpers.commands import fails
from tests.helpers.parts import small_codec
from tests.helpers.shards import content, packed
from tests.helpers.signals import speechlike

RATE = 800


@pytest.fixture
def source(tmp_path):
    """Twelve recordings of 1 s and more at the codec's rate, by four speakers."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = ["file,speaker,text"]
    for i in range(12):
        soundfile.write(folder / f"{i:02d}.flac", speechlike(1.0 + 0.01 * i, RATE, i), RATE)
        lines.append(f"{i:02d}.flac,s{i % 4},said {i}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def ckpt(tmp_path):
    saved(tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def quietly(codec, source, out, n_q=None):
    return extract(TokenExtractor(codec, n_q), cut(FolderCorpus(source, RATE), 2.0), out, report=lambda _: None)


@pytest.mark.parametrize("n_q", [None, 2])
def test_every_recording_has_the_codes_that_it_has_alone(source, tmp_path, n_q):
    codec = small_codec().eval()
    index = quietly(codec, source, tmp_path / "out", n_q=n_q)
    found = {}
    for unit in index["units"]:
        found |= {
            about["file"]: (about, tokens)
            for about, tokens in read_token_shard(tmp_path / "out" / f"{unit['name']}.safetensors")
        }
    corpus = FolderCorpus(source, RATE, holdout=1)
    clips = {clip["file"]: clip for clip in corpus.clips("val")}
    assert set(found) == set(clips)
    for name, (about, tokens) in found.items():
        wav = clips[name]["wav"]
        with torch.no_grad():
            assert torch.equal(tokens.codes, codec.encode(wav[None], n_q)[0])
        assert (tokens.length, tokens.sample_rate, tokens.hop_length) == (wav.shape[-1], RATE, 8)
        assert tokens.model == codebook_fingerprint(codec.quantizer, n_q or 3)
        assert (about["speaker"], about["text"]) == (clips[name]["speaker"], clips[name]["text"])
    assert sum(unit["recordings"] for unit in index["units"]) == 12
    assert sum(unit["seconds"] for unit in index["units"]) == pytest.approx(12.66)
    held = {index["units"][i]["name"] for i in index["splits"]["val"]}
    assert held == {unit["name"] for unit in index["units"] if unit["name"].startswith("held-")}


def test_shards_give_the_codes_of_their_folder(source, tmp_path):
    codec = small_codec().eval()
    quietly(codec, source, tmp_path / "folder")
    shards = packed(source, tmp_path / "shards", seconds=2.0)
    extract(TokenExtractor(codec), cut(ShardCorpus(shards, RATE), 2.0), tmp_path / "out", report=lambda _: None)

    def all_codes(folder):
        return {a["file"]: t.codes.tolist() for p in folder.glob("*.safetensors") for a, t in read_token_shard(p)}

    assert all_codes(tmp_path / "out") == all_codes(tmp_path / "folder")


def process(source, out, ckpt, environment, pause=0.0):
    """The command in a process of its own, with an encoder that takes its time."""

    def run():
        torch.set_num_threads(1)  # the threads of the process that this one is forked from are not here
        for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        encode = Codec.encode
        Codec.encode = lambda *arguments: (time.sleep(pause), encode(*arguments))[1]
        main(
            [
                "extract",
                str(out),
                "dataset=folder",
                f"dataset.path={source}",
                "--ckpt",
                str(ckpt),
                "--device",
                "cpu",
                "--seconds",
                "2",
            ]
        )

    started = multiprocessing.get_context("fork").Process(target=run)
    started.start()
    return started


def test_two_processes_one_killed_and_started_again_make_what_one_makes(source, tmp_path, ckpt):
    one, out = tmp_path / "one", tmp_path / "out"
    whole = process(source, one, ckpt, {})
    killed = process(source, out, ckpt, {"RANK": "0", "WORLD_SIZE": "2"}, pause=0.1)
    while not list(out.glob("*.safetensors")) and killed.is_alive():
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    for ended in (whole, killed):
        ended.join(60)
    assert (whole.exitcode, killed.exitcode) == (0, -signal.SIGKILL)
    done, wanted = ({path.name for path in folder.glob("*.safetensors")} for folder in (out, one))
    assert set() < done < wanted
    assert not (out / "index.json").exists()
    first = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}
    pair = [process(source, out, ckpt, first), process(source, out, ckpt, {"RANK": "1", "WORLD_SIZE": "2"})]
    for ended in pair:
        ended.join(60)
        assert ended.exitcode == 0
    assert content(out) == content(one)


def test_what_is_done_is_not_done_again(source, tmp_path, monkeypatch):
    codec = small_codec().eval()
    quietly(codec, source, tmp_path / "out")
    before = content(tmp_path / "out")
    monkeypatch.setattr(type(codec), "encode", lambda *_: pytest.fail("encoded again"))
    quietly(codec, source, tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_another_codec_or_corpus_is_refused(source, tmp_path):
    quietly(small_codec().eval(), source, tmp_path / "out")
    for codec, options in ((small_codec(seed=1), {}), (small_codec(), {"n_q": 2})):
        with pytest.raises(CorpusError, match="holds work on another corpus, or with other options"):
            quietly(codec.eval(), source, tmp_path / "out", **options)


def test_damage_is_found(source, tmp_path):
    codec = small_codec().eval()
    quietly(codec, source, tmp_path / "out")
    path = tmp_path / "out" / "train-000000.safetensors"
    whole = path.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    deep = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    deep["__metadata__"]["about"] = "[" * 10**5
    header = json.dumps(deep).encode()
    deep = len(header).to_bytes(8, "little") + header + whole[8 + int.from_bytes(whole[:8], "little") :]
    foreign = whole.replace(b"codec-token-shards", b"codec-token-shardz")
    for damaged in (b"", whole[:-10], bytes([whole[0] ^ 1]) + whole[1:], foreign, flipped, deep):
        path.write_bytes(damaged)
        with pytest.raises(TokenError, match=r"train-000000\.safetensors is"):
            list(read_token_shard(path))
    with pytest.raises(CorpusError, match="remove it and extract again"):
        quietly(codec, source, tmp_path / "out")
    path.unlink()
    quietly(codec, source, tmp_path / "out")
    assert path.read_bytes() == whole


GOOD = {"sample_rate": RATE, "hop_length": 8, "model": "0", "n_q": 1, "unreadable": []}
GOOD |= {"format": "codec-token-shards", "version": 2}
ABOUT = {"file": "a", "speaker": "", "text": "", "phones": ""}


@pytest.mark.parametrize(
    "change",
    [
        {"hop_length": 0},
        {"hop_length": -8},
        {"hop_length": 8.0},
        {"hop_length": 2**70},
        {"sample_rate": "x"},
        {"sample_rate": 0},
        {"model": [1]},
        {"recordings": {"a": 1}},
        {"recordings": "a"},
        {"recordings": [{}]},
        {"recordings": [{**ABOUT, "text": 7}]},
        {"recordings": []},
        "[" * 100_000,
        "[]",
        "",
        [[1], [[5]], [[1]]],
        [[1], [5.0], [1.0]],
        [[1], [2**62], [1]],
        [[], [5], [1]],
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_strangers_unit_is_held_to_bounds(tmp_path, change):
    def written(about, codes=(1,), lengths=(5,), ends=(1,)):
        tensors = {"codes": np.zeros((len(codes), 1), np.uint16), "ends": np.asarray(ends)}
        tensors["lengths"] = np.asarray(lengths)
        if isinstance(about, dict):
            about = json.dumps(about | {"checksum": checksum(about, tensors)})
        (tmp_path / "u").write_bytes(save(tensors, {"about": about}))
        return tmp_path / "u"

    good = GOOD | {"recordings": [ABOUT]}
    assert len(list(read_token_shard(written(good)))) == 1
    arrays = change if isinstance(change, list) else ()
    about = change if isinstance(change, str) else good | (change if isinstance(change, dict) else {})
    with pytest.raises(TokenError) as error:
        list(read_token_shard(written(about, *arrays)))
    assert "\n" not in str(error.value)


def test_a_broken_recording_is_left_out_and_named(source, tmp_path):
    path = source / "05.flac"
    path.write_bytes(path.read_bytes()[:-200])
    index = quietly(small_codec().eval(), source, tmp_path / "out")
    assert sum(unit["recordings"] for unit in index["units"]) == 11
    assert any(b"05.flac" in p.read_bytes() for p in (tmp_path / "out").glob("*.safetensors"))
    for name in ("06.flac", "07.flac", "08.flac"):
        (source / name).write_bytes((source / name).read_bytes()[:-200])
    for _ in range(6):  # what one call has made, the next does not make again
        with pytest.raises(CorpusError, match="too many"):
            quietly(small_codec().eval(), source, tmp_path / "again")
    assert not (tmp_path / "again" / "index.json").exists()


def test_as_a_command(source, tmp_path, ckpt, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--ckpt", "a.ckpt", "--device", "cpu"]
    source = ["dataset=folder", "dataset.path=source"]
    main(["extract", "out", *options, *source])
    assert "12 recordings, 0.00 h, 3 codebooks: out/index.json" in capsys.readouterr().out
    assert json.loads(Path("out/index.json").read_text())["sample_rate"] == load_codec(ckpt)[0].sample_rate
    main(["extract", "part", *source, *options, "--seconds", "1", "--rank", "1", "--world", "2"])
    assert "the last one to finish writes part/index.json" in capsys.readouterr().out
    fails(["extract", "out", *source, *options, "--n-q", "2"], "out holds work on another corpus")
    fails(["extract", "new", *source, *options, "--n-q", "9"], "has 3 codebooks: choose 1 to 3")
    fails(["extract", "new", *source, *options, "--rank", "5", "--world", "2"], "rank 5 of 2")
    assert not Path("new").exists()
