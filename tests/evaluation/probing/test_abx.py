"""ABX errors that are known beforehand."""

import numpy as np
import pytest
import torch

from codec.evaluation.probing.abx import abx, distances, tokens
from codec.utils.errors import InputError

RATE, FRAME_RATE = 16_000, 50.0
SOUNDS = {"b": [0, 0, 1, 0], "g": [0, 0, 0, 1], "a": [1, 0, 0, 0], "i": [0, 1, 0, 0]}


def word(text: str, speaker: str, latents: dict | None = None, seconds: float = 0.1) -> dict:
    """One recording of a word: every phone lasts ``seconds``, with latents from ``SOUNDS``."""
    x = np.repeat([(latents or SOUNDS)[symbol] for symbol in text], round(seconds * FRAME_RATE), axis=0)
    phones = [(symbol, i * seconds) for i, symbol in enumerate(text)]
    samples = int(len(text) * seconds * RATE)
    return {"latents": torch.tensor(x).float().T, "phones": phones, "speaker": speaker, "samples": samples}


def words(speakers: str = "st", each: int = 3, **options) -> list[dict]:
    return [word(w, s, **options) for s in speakers for w in ("bag", "big") for _ in range(each)]


def noise(items: list[dict], strength: float, signal: float = 0.0) -> list[dict]:
    rng = np.random.default_rng(0)
    draw = lambda x: torch.from_numpy(rng.standard_normal(x.shape))  # noqa: E731
    return [item | {"latents": signal * item["latents"] + strength * draw(item["latents"])} for item in items]


@pytest.mark.parametrize("across", [False, True])
def test_separable_sounds_have_no_error_and_equal_sounds_are_chance(across):
    clear = noise(words(), 0.1, 1.0)
    assert abx(clear, FRAME_RATE, RATE, across) == (0.0, 0.0, 0.0, 4, 2)  # two speakers, a against i and i against a
    same = words(latents={symbol: [1, 0, 0, 0] for symbol in SOUNDS})
    assert abx(same, FRAME_RATE, RATE, across).mean == 0.5  # all ties
    items = noise(words("stuvwxyz", each=6), 1.0)
    interval = abx(items, FRAME_RATE, RATE, across)
    assert interval.low < 0.5 < interval.high
    assert interval.mean == pytest.approx(0.5, abs=0.1)


def test_exchanged_sounds_are_wrong_across_speakers_only_and_tempo_does_not_matter():
    exchanged = SOUNDS | {"a": SOUNDS["i"], "i": SOUNDS["a"]}
    items = words("s") + words("t", latents=exchanged)
    assert abx(items, FRAME_RATE, RATE).mean == 0
    assert abx(items, FRAME_RATE, RATE, across=True).mean == 1
    assert abx(words("s") + words("t", seconds=0.2), FRAME_RATE, RATE, across=True).mean == 0


def test_one_odd_token_by_hand():
    """Of three tokens of bag one sounds like big.

    X is the odd one: both A are farther than B, 2 errors of 2. X is a plain one: the plain A is nearer, the odd A as
    far as B, 1/2 error of 2; twice. In all 3 of 6. Of big there is one token: no A beside X.
    """
    odd = word("bag", "s", latents=SOUNDS | {"a": SOUNDS["i"]})
    assert abx([word("bag", "s"), word("bag", "s"), odd, word("big", "s")], FRAME_RATE, RATE).mean == 3 / 6


def test_warping_by_hand():
    a, b = np.eye(2)
    pairs = [([a, b], [a, b]), ([a, a, b], [a, b, b]), ([a], [b]), ([a, b], [a, a])]
    # the last: a-a, then b-a: costs 0 and 1, mean 1/2
    np.testing.assert_allclose(distances([(np.stack(x), np.stack(y)) for x, y in pairs]), [0, 0, 1, 0.5])


def test_triphones_end_at_pauses_and_have_a_frame_at_any_rate():
    item = word("bagib", "s")
    names = [(*t.context, t.centre) for t in tokens(item, FRAME_RATE, RATE)]
    assert names == [("b", "g", "a"), ("a", "i", "g"), ("g", "b", "i")]
    item["phones"].insert(3, ("_", 0.29))
    assert [t.centre for t in tokens(item, FRAME_RATE, RATE)] == ["a"]
    coarse = word("bagib", "s") | {"latents": torch.ones(4, 1)}
    assert all(len(t.frames) == 1 for t in tokens(coarse, 2.0, RATE))


def test_nothing_to_compare_is_refused_and_a_seed_repeats_itself():
    with pytest.raises(InputError, match="within a speaker"):
        abx([word("bag", "s"), word("big", "s")], FRAME_RATE, RATE)
    with pytest.raises(InputError, match="across speakers"):
        abx(words("s"), FRAME_RATE, RATE, across=True)
    items = noise(words("stuv", each=9), 1.0)
    assert abx(items, FRAME_RATE, RATE) == abx(items, FRAME_RATE, RATE)
    assert abx(items, FRAME_RATE, RATE) != abx(items, FRAME_RATE, RATE, seed=1)
