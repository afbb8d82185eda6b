"""Waveforms to normalised latents and back, with the statistics of the right codec only."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from codec.data.base import CorpusError
from codec.latents.index import Statistics
from codec.latents.latent_space import LatentSpace, latent_fingerprint
from codec.utils.errors import InputError
from tests.helpers.codecs import KINDS, made, saved
from tests.helpers.parts import tone_batch, unquantized

PAGE = Path(__file__).parents[2] / "docs" / "flow.md"


def statistics(codec, kind="pre") -> Statistics:
    """Those of a few tones."""
    with torch.no_grad():
        x = codec.quantizer.to_latents(codec.latents(tone_batch(8, 800)), kind)
    rates = codec.sample_rate, codec.hop_length
    return Statistics(kind, latent_fingerprint(codec, kind), *rates, x.mean((0, 2)), x.std((0, 2)))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_there_and_back_is_the_codecs_own_continuous_reconstruction(name, kind):
    codec, _ = made(name)
    space, wav = LatentSpace(codec, statistics(codec, kind)), tone_batch(2, 250, seed=1)
    x = space.encode(wav)
    assert x.shape == (2, space.dim, 32)
    with torch.no_grad():
        z = codec.latents(wav)
        expected = (
            codec(wav).wav if kind == "post" else codec.decode_latents(unquantized(codec.quantizer, z))[..., :250]
        )
    torch.testing.assert_close(space.decode(x, 250), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(space.normalise(space.denormalise(x)), x, atol=1e-5, rtol=0)
    assert space.decode(x).shape == (2, 1, 32 * 8)
    normal = space.encode(tone_batch(8, 800))
    # where a mean is thousands of standard deviations away, fp32 leaves so much of it
    torch.testing.assert_close(normal.mean((0, 2)), torch.zeros(space.dim), atol=5e-3, rtol=0)
    torch.testing.assert_close(normal.std((0, 2)), torch.ones(space.dim), atol=5e-3, rtol=0)


def test_from_a_checkpoint_and_the_folder_of_extract(split):
    space = LatentSpace.load(split.ckpt, split.folder)
    facts = json.loads((split.folder / "index.json").read_text())
    assert (space.kind, space.fingerprint, space.dim) == ("pre", facts["fingerprint"], 8)
    assert (space.frame_rate, space.sample_rate) == (100, 800)
    assert space.mean.tolist() == facts["mean"]
    wav = tone_batch(1, 250)
    x = space.encode(wav)
    space.codec.for_inference()
    torch.testing.assert_close(space.encode(wav), x, atol=1e-4, rtol=0)
    kept = Statistics.of(json.loads(json.dumps(space.statistics.plain())), "a checkpoint")
    assert torch.equal(LatentSpace.load(split.ckpt, kept, "pre").encode(wav), x)


def test_the_lines_of_the_documentation(split, tmp_path, monkeypatch):
    block = re.search(r"```python\n(from codec\.latents\.latent_space.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    assert len(block.strip().splitlines()) <= 6
    monkeypatch.chdir(tmp_path)
    shutil.copy(split.ckpt, "last.ckpt")
    shutil.copytree(split.folder, "LATENTS")
    names = {"wav": tone_batch(1, 250), "model": lambda x: 0.5 * x}
    exec(block, names)
    assert names["x"].shape == (1, 8, 32)
    assert names["wav"].shape == (1, 1, 250)


def test_statistics_of_other_latents_are_refused(split, tmp_path):
    saved(tmp_path / "other.ckpt", "split_rvq", seed=1)
    with pytest.raises(InputError, match=r"of another codec's latents .* extract latents with this checkpoint"):
        LatentSpace.load(tmp_path / "other.ckpt", split.folder)
    with pytest.raises(InputError, match="of latents of kind pre, not post"):
        LatentSpace.load(split.ckpt, split.folder, kind="post")
    with pytest.raises(CorpusError, match=r"has no index\.json: write one with python -m codec extract --kind latents"):
        LatentSpace.load(split.ckpt, tmp_path)
    given = LatentSpace.load(split.ckpt, split.folder).statistics
    for changes in ({"kind": "post"}, {"hop_length": 16}):
        with pytest.raises(InputError, match="of another codec's latents"):
            LatentSpace(split.codec, dataclasses.replace(given, **changes))
    with pytest.raises(InputError, match="of 3 channels, and the codec has latents of 8"):
        LatentSpace(split.codec, dataclasses.replace(given, mean=given.mean[:3], std=given.std[:3]))
    with pytest.raises(ValueError, match=r"are \[B, 8, F\], got \[1, 8\]"):
        LatentSpace(split.codec, given).decode(torch.zeros(1, 8))


def test_a_fingerprint_is_of_what_gives_latents_their_meaning():
    codec, _ = made("split_rvq")
    before = {kind: latent_fingerprint(codec, kind) for kind in ("pre", "post")}
    assert before["pre"] != before["post"]

    def same(parameter) -> tuple[bool, bool]:
        own = parameter.detach().clone()
        with torch.no_grad():
            parameter += 1
            found = tuple(latent_fingerprint(codec, kind) == before[kind] for kind in ("pre", "post"))
            parameter.copy_(own)
        return found

    changed = {
        "decoder": next(codec.decoder.parameters()),
        "encoder": next(codec.encoder.parameters()),
        "projection": codec.quantizer.acoustic.project_in.weight,
        "codebook": codec.quantizer.acoustic.codebooks,
    }
    assert {name: same(parameter) for name, parameter in changed.items()} == {
        "decoder": (True, True),
        "encoder": (False, False),
        "projection": (False, False),
        "codebook": (True, False),
    }
    with pytest.raises(ValueError, match="make its LatentSpace before"):
        latent_fingerprint(codec.for_inference(), "pre")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "mid"}, "kind"),
        ({"fingerprint": "../x"}, "fingerprint"),
        ({"sample_rate": True}, "sample_rate"),
        ({"mean": [float("nan")] * 8}, "mean"),
        ({"std": [0.0] * 8}, "std"),
        ({"std": [1.0] * 7}, "channels"),
        ({"mean": ["1"] * 8}, "mean"),
        ({"mean": []}, "mean"),
    ],
)
def test_statistics_that_cannot_be_are_refused(change, sentence, split):
    plain = LatentSpace.load(split.ckpt, split.folder).statistics.plain()
    with pytest.raises(CorpusError, match=f"here: {sentence}|here: .*{sentence}"):
        Statistics.of(plain | change, "here")
    with pytest.raises(CorpusError, match="here: "):
        Statistics.of([plain], "here")
