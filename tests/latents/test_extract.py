"""python -m codec extract: the same tokens and latents whoever computes them, however often they are killed."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from codec.__main__ import main
from codec.data.base import CorpusError
from codec.data.folder import FolderCorpus
from codec.data.shard_corpus import ShardCorpus
from codec.data.work_units import cut
from codec.latents.export import LatentExtractor, merged, moments
from codec.latents.extract import TOKENS, Extractor, TokenExtractor, extract, read_token_shard
from codec.latents.index import LATENTS
from codec.latents.shard_file import ShardFile, checksum
from codec.latents.token_file import TokenError, codebook_fingerprint
from codec.model import Codec
from tests.helpers.codecs import HOP, RATE, latents_of, made, saved
from tests.helpers.commands import fails
from tests.helpers.shards import content, packed

EXTRACTORS = {
    "tokens": (TokenExtractor, "rvq"),
    "2 codebooks": (lambda codec: TokenExtractor(codec, 2), "rvq"),
    "pre": (LatentExtractor, "split_rvq"),
    "post": (lambda codec: LatentExtractor(codec, "post"), "split_rvq"),
    "vae": (LatentExtractor, "vae"),
}


def quietly(extractor: Extractor, source: Path, out: Path) -> dict | None:
    return extract(extractor, cut(FolderCorpus(source, RATE), 2.0), out, report=lambda _: None)


def matrices(folder: Path, layout) -> dict[str, tuple[np.ndarray, dict, int]]:
    """Matrix, metadata and length of every recording in a folder, by its name."""
    found = {}
    for path in folder.glob("*.safetensors"):
        shard = ShardFile(path, layout)
        for i, known in enumerate(shard.recordings):
            found[known["file"]] = shard.read(*shard.span(i)), known, int(shard.lengths[i])
    return found


@pytest.fixture
def damageable(source, tmp_path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "source"))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_recording_has_the_matrix_that_it_has_alone(name, source, tmp_path):
    make, quantizer = EXTRACTORS[name]
    codec, _ = made(quantizer)
    extractor: Extractor = make(codec)
    index = quietly(extractor, source, tmp_path / "out")
    clips = {clip["file"]: clip for clip in FolderCorpus(source, RATE, holdout=1).clips("val")}
    found = matrices(tmp_path / "out", extractor.layout)
    assert set(found) == set(clips)
    for file, (matrix, known, length) in found.items():
        clip = clips[file]
        with torch.no_grad():
            assert np.array_equal(matrix, extractor.matrix(clip["wav"][None]))
        assert (known["speaker"], known["text"], length) == (clip["speaker"], clip["text"], clip["wav"].shape[-1])
        assert known["phones"].startswith("p0@0.0000 p1@0.2000")
    assert (index["sample_rate"], index["hop_length"]) == (RATE, HOP)
    assert sum(unit["recordings"] for unit in index["units"]) == 12
    for part in ("val", "test"):
        held = {index["units"][i]["name"] for i in index["splits"][part]}
        assert held == {unit["name"] for unit in index["units"] if unit["name"].startswith(part)} != set()
    if isinstance(extractor, TokenExtractor):
        path = tmp_path / "out" / f"{index['units'][0]['name']}.safetensors"
        for known, tokens in read_token_shard(path):
            assert np.array_equal(tokens.codes, found[known["file"]][0])
            assert tokens.model == codebook_fingerprint(codec.quantizer, extractor.n_q)


def test_shards_give_the_codes_of_their_folder(source, tmp_path):
    extractor = TokenExtractor(made("rvq")[0])
    quietly(extractor, source, tmp_path / "folder")
    shards = packed(source, tmp_path / "shards", seconds=2.0)
    extract(extractor, cut(ShardCorpus(shards, RATE), 2.0), tmp_path / "out", report=lambda _: None)
    found, wanted = (matrices(tmp_path / name, TOKENS) for name in ("out", "folder"))
    assert {file: matrix.tolist() for file, (matrix, *_) in found.items()} == {
        file: matrix.tolist() for file, (matrix, *_) in wanted.items()
    }


@pytest.mark.parametrize("seconds", [1.0, 1000.0])
def test_statistics_are_those_of_all_training_frames(seconds, split, tmp_path):
    index = latents_of(split.codec, split.source, tmp_path / "out", seconds=seconds)
    every = matrices(tmp_path / "out", LATENTS)
    corpus = FolderCorpus(split.source, RATE)
    train = [corpus.recording(i).name for i in corpus.splits["train"].tolist()]
    assert 0 < len(train) < len(every)
    frames = np.concatenate([every[file][0] for file in train], axis=1).astype(np.float64)
    np.testing.assert_allclose(index["mean"], frames.mean(1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(index["std"], frames.std(1), rtol=1e-6)


def test_moments_merge_as_if_taken_at_once():
    rng = np.random.default_rng(0)
    frames = 1e4 + rng.standard_normal((3, 5000)).astype(np.float32)  # far from 0: squares would lose the difference
    count, mean, deviations = merged([moments(piece) for piece in np.split(frames, [1, 1, 700, 4999], axis=1)])
    assert count == 5000
    wide = frames.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(1), rtol=1e-14)
    np.testing.assert_allclose(deviations, np.square(wide - wide.mean(1, keepdims=True)).sum(1), rtol=1e-11)
    assert merged([moments(frames[:, :0])])[0] == 0


def process(source: Path, out: Path, ckpt: Path, environment: dict[str, str], pause: float = 0.0):
    """The command in a process of its own, with an encoder that takes its time."""

    def run():
        torch.set_num_threads(1)  # the threads of the process that this one is forked from are not here
        for name in ("RANK", "WORLD_SIZE", "SLURM_ARRAY_TASK_ID"):
            os.environ.pop(name, None)
        os.environ.update(environment)
        encode = Codec.encode
        Codec.encode = lambda *arguments: (time.sleep(pause), encode(*arguments))[1]
        corpus = ["dataset=folder", f"dataset.path={source}"]
        main(["extract", str(out), "--ckpt", str(ckpt), "--device", "cpu", "--seconds", "2", *corpus])

    started = multiprocessing.get_context("fork").Process(target=run)
    started.start()
    return started


def test_two_processes_one_killed_and_restarted_make_what_one_makes(split, tmp_path):
    one, out = tmp_path / "one", tmp_path / "out"
    whole = process(split.source, one, split.ckpt, {})
    killed = process(split.source, out, split.ckpt, {"RANK": "0", "WORLD_SIZE": "2"}, pause=0.1)
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
    second = {"RANK": "1", "WORLD_SIZE": "2"}
    for ended in [process(split.source, out, split.ckpt, environment) for environment in (first, second)]:
        ended.join(60)
        assert ended.exitcode == 0
    assert content(out) == content(one)


def test_existing_files_are_not_computed_again(split, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert latents_of(split.codec, split.source, out, part=(1, 2)) is None
    assert not (out / "index.json").exists()
    latents_of(split.codec, split.source, out, part=(0, 2))
    assert content(out) == content(split.folder)
    monkeypatch.setattr(LatentExtractor, "matrix", lambda *_: pytest.fail("computed again"))
    latents_of(split.codec, split.source, out)
    assert content(out) == content(split.folder)


def test_another_codec_or_kind_is_refused(split, source, tmp_path):
    for codec, kind in ((made("split_rvq", seed=1)[0], "pre"), (split.codec, "post")):
        with pytest.raises(CorpusError, match="another corpus"):
            latents_of(codec, split.source, split.folder, kind)
    quietly(TokenExtractor(split.codec), source, tmp_path / "out")
    with pytest.raises(CorpusError, match="another corpus"):
        quietly(TokenExtractor(split.codec, 2), source, tmp_path / "out")


@pytest.mark.parametrize("make", [TokenExtractor, LatentExtractor])
def test_damaged_files_are_named_and_made_again(make: Callable, source, tmp_path):
    extractor = make(made("rvq")[0])
    quietly(extractor, source, tmp_path / "out")
    path = tmp_path / "out" / "train-000000.safetensors"
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"]["about"] = "[" * 10**5
    header = json.dumps(header).encode()
    deep = len(header).to_bytes(8, "little") + header + whole[8 + size :]
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    foreign = whole.replace(b"moments", b"momentz").replace(b"codec-token-shards", b"codec-token-shardz")
    for damaged in (b"", whole[:-10], bytes([whole[0] ^ 1]) + whole[1:], foreign, flipped, deep):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match=r"train-000000\.safetensors is .*; remove it and extract again"):
            quietly(extractor, source, tmp_path / "out")
        with pytest.raises(TokenError, match=r"train-000000\.safetensors is"):
            list(read_token_shard(path))
    path.unlink()
    quietly(extractor, source, tmp_path / "out")
    assert path.read_bytes() == whole


RECORDING = {"file": "a", "speaker": "", "text": "", "phones": ""}
ABOUT = {"sample_rate": RATE, "hop_length": 8, "model": "0", "n_q": 1, "unreadable": [], "recordings": [RECORDING]}
ABOUT |= {"format": "codec-token-shards", "version": 2}


@pytest.mark.parametrize(
    "change",
    [
        *({"hop_length": value} for value in (0, -8, 8.0, 2**70)),
        *({"sample_rate": value} for value in ("x", 0)),
        {"model": [1]},
        *({"recordings": value} for value in ({"a": 1}, "a", [{}], [{**RECORDING, "text": 7}], [])),
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
def test_headers_out_of_bounds(tmp_path, change):
    def written(about, codes=(1,), lengths=(5,), ends=(1,)):
        tensors = {"codes": np.zeros((len(codes), 1), np.uint16), "ends": np.asarray(ends)}
        tensors["lengths"] = np.asarray(lengths)
        if isinstance(about, dict):
            about = json.dumps(about | {"checksum": checksum(about, tensors)})
        (tmp_path / "u").write_bytes(save(tensors, {"about": about}))
        return tmp_path / "u"

    assert len(list(read_token_shard(written(ABOUT)))) == 1
    arrays = change if isinstance(change, list) else ()
    about = change if isinstance(change, str) else ABOUT | (change if isinstance(change, dict) else {})
    with pytest.raises(TokenError) as error:
        list(read_token_shard(written(about, *arrays)))
    assert "\n" not in str(error.value)


def test_unreadable_recordings_are_left_out_and_named(damageable, tmp_path):
    def cut_off(*names: str) -> None:
        for name in names:
            (damageable / name).write_bytes((damageable / name).read_bytes()[:-200])

    extractor = TokenExtractor(made("rvq")[0])
    cut_off("05.flac")
    index = quietly(extractor, damageable, tmp_path / "out")
    assert sum(unit["recordings"] for unit in index["units"]) == 11
    assert any(b"05.flac" in p.read_bytes() for p in (tmp_path / "out").glob("*.safetensors"))
    cut_off("06.flac", "07.flac", "08.flac")
    for _ in range(6):  # each call makes some files more
        with pytest.raises(CorpusError, match="too many"):
            quietly(extractor, damageable, tmp_path / "again")
    assert not (tmp_path / "again" / "index.json").exists()


def test_nothing_is_written_without_statistics(source, tmp_path):
    codec, _ = made("none")
    units = cut(FolderCorpus(source, RATE, holdout=1), 2.0)
    with pytest.raises(CorpusError, match="every recording is held out"):
        extract(LatentExtractor(codec), units, tmp_path / "out")
    torch.nn.init.constant_(next(codec.encoder.parameters()), torch.nan)
    with pytest.raises(ValueError, match="latents that are not finite"):
        latents_of(codec, source, tmp_path / "out")
    assert not list(tmp_path.glob("out/*.safetensors"))


def test_as_a_command(split, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = ["dataset=folder", f"dataset.path={split.source}", "--device", "cpu"]
    tokens, latents = ["--ckpt", str(split.ckpt), *source], ["--kind", "latents", "--ckpt", str(split.ckpt), *source]
    main(["extract", "tokens", *tokens])
    assert "12 recordings, 0.00 h, 3 codebooks: tokens/index.json" in capsys.readouterr().out
    main(["extract", "part", *tokens, "--seconds", "1", "--rank", "1", "--world", "2"])
    assert "the last one to finish writes part/index.json" in capsys.readouterr().out
    main(["extract", "out", *latents])
    assert "12 recordings, 0.00 h, 8 channels at 100 Hz (pre): out/index.json" in capsys.readouterr().out
    index, before = (json.loads((folder / "index.json").read_text()) for folder in (tmp_path / "out", split.folder))
    assert index["fingerprint"] == before["fingerprint"]  # though the command computes in the form for inference
    np.testing.assert_allclose(index["mean"], before["mean"], atol=1e-5)
    fails(["extract", "out", *latents, "--latents", "post"], "holds work on another corpus")
    fails(["extract", "new", *tokens, "--n-q", "9"], "has 3 codebooks: choose 1 to 3")
    fails(["extract", "new", *tokens, "--rank", "5", "--world", "2"], "rank 5 of 2")
    fails(["extract", "new", *latents, "--n-q", "2"], "--n-q has no meaning")
    fails(["extract", "new", *tokens, "--latents", "pre"], "--latents has no meaning")
    saved(tmp_path / "vae.ckpt", "vae")
    vae = ["--ckpt", "vae.ckpt"]
    fails(["extract", "new", "--kind", "latents", *vae, *source, "--latents", "post"], "continuous")
    fails(["extract", "new", *vae, *source], "continuous and has no tokens")
    fails(["encode", split.source / "00.flac", "new", *vae], "continuous and has no tokens")
    assert not (tmp_path / "new").exists()
