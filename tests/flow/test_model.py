"""Filling in: what is known stays, what is hidden is not seen, padding and pieces change nothing."""

import pytest
import torch

from codec.flow.dit import turned
from codec.flow.model import cut_phones
from codec.flow.objective import NaturalSpeech2, on_path
from codec.flow.text_conditioning import SpreadCharacters
from codec.layers.transformer import rotary, rotate
from codec.utils.errors import InputError
from tests.helpers.flow_parts import CONDITIONS, C, example, small_flow, told

ALL = tuple(CONDITIONS)


@pytest.mark.parametrize("sampler", ["euler", "midpoint"])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_what_is_known_stays_to_the_bit_and_the_span_hangs_on_the_seed(guidance, sampler):
    flow, (known, span) = small_flow(*ALL), example()
    options = dict(steps=3, guidance=guidance, sampler=sampler)
    shares = []
    out = flow.inpaint(known, span, told(), seed=1, progress=shares.append, **options)
    outside = ~span[:, None].expand_as(known)
    assert torch.equal(out[outside], known[outside])
    assert bool(out.isfinite().all())
    assert torch.equal(out, flow.inpaint(known, span, told(), seed=1, **options))
    assert not torch.equal(out, flow.inpaint(known, span, told(), seed=2, **options))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    hidden = torch.where(outside, known, torch.nan)  # what stands in the span is not looked at
    assert torch.equal(out, flow.inpaint(hidden, span, told(), seed=1, **options))


def velocity(flow, known, span, given, keep: bool, seen: bool, lengths=None, t=0.3):
    """As the sampler asks for it, with the same noise for all frames that there are."""
    batch, _, frames = known.shape
    noise = torch.randn(batch, C, 100, generator=torch.Generator().manual_seed(9))[..., :frames]
    inside = torch.arange(frames) < torch.tensor(lengths or [frames] * batch)[:, None]
    at, flags = torch.full((batch,), t), torch.ones(batch, dtype=torch.bool)
    told = flow.condition(given, inside).kept(flags & keep)
    with torch.no_grad():
        return flow(on_path(known, noise, at), at, known, span, inside, told, flags & seen)


def test_the_free_side_sees_nothing_of_what_is_known_nor_of_what_is_told():
    flow, (known, span), (other, _) = small_flow(*ALL), example(), example(seed=5)
    changed = torch.where(span[:, None], known, other)
    more = told(seed=3) | {"text": ["c", "cc"], "phones": [[("c", 0.0)], [("a", 0.1)]]}
    free = velocity(flow, known, span, told(), keep=False, seen=False)
    assert torch.equal(free, velocity(flow, changed, span, more, keep=False, seen=False))
    spoilt = torch.where(span[:, None], known, torch.nan)
    assert torch.equal(free, velocity(flow, spoilt, span, more, keep=False, seen=False))
    # and the other side does see both
    full = velocity(flow, known, span, told(), keep=True, seen=True)
    assert not torch.allclose(full, velocity(flow, changed, span, told(), keep=True, seen=True), atol=1e-4)
    assert not torch.allclose(full, velocity(flow, known, span, more, keep=True, seen=True), atol=1e-4)


@pytest.mark.parametrize("name", [None, *CONDITIONS])
def test_padding_never_changes_a_shorter_example(name):
    """Whatever stands in the padding, of latents, span and prompt; and the whole way through the sampler."""
    flow = small_flow(*([name] if name else []))
    known, span = example(frames=20)
    short, given = known[:1, :, :13], told(1)
    alone = velocity(flow, short, span[:1, :13], given, True, True)
    wide = torch.cat([torch.cat([short, torch.full((1, C, 7), 1e3)], dim=-1), known[1:]])
    both = told() | {"prompt": torch.cat([told()["prompt"], torch.full((2, C, 4), 1e3)], -1)}
    both["prompt_lengths"] = torch.tensor([7, 7])
    spans = torch.cat([torch.cat([span[:1, :13], torch.ones(1, 7, dtype=torch.bool)], dim=1), span[1:]])
    found = velocity(flow, wide, spans, both, True, True, [13, 20])
    torch.testing.assert_close(found[:1, :, :13], alone, atol=1e-5, rtol=1e-5)
    assert not found[0, :, 13:].any()
    options = dict(steps=2, guidance=2.0, seed=4)
    sampled = flow.inpaint(wide, spans, both | {"lengths": torch.tensor([13, 20])}, **options)
    one = flow.inpaint(short, span[:1, :13], given, **options)
    torch.testing.assert_close(sampled[:1, :, :13], one, atol=1e-5, rtol=1e-5)
    assert torch.equal(sampled[0, :, 13:], wide[0, :, 13:])


def test_conditions_are_heard():
    for name, change in {
        "aligned_phones": {"phones": [[("a", 0.0), ("b", 0.06)], [("c", 0.02)]]},  # half a frame later
        "characters": {"text": ["abc cac", "b a"]},
        "spread_characters": {"text": ["abc cac", "b a"]},
        "phones": {"phones": [[("b", 0.0), ("a", 0.05)], [("c", 0.02)]]},
        "prompt": {"prompt": told()["prompt"].flip(1)},
        "prompt_attention": {"prompt": told()["prompt"].flip(1)},
    }.items():
        flow, (known, span) = small_flow(name), example()
        before, after = (velocity(flow, known, span, given, True, True) for given in (told(), told() | change))
        assert not torch.allclose(before[0], after[0], atol=1e-4), name
        if "prompt" not in name:  # only the first example was told something else
            torch.testing.assert_close(before[1], after[1])


def test_characters_are_spread_evenly_over_each_recording():
    """Where recordings of different lengths say equal characters, the same is said in equal shares of them."""
    torch.manual_seed(0)
    condition = SpreadCharacters("abc", frame_rate=100, width=16, hidden=8, blocks=0, per_second=200.0)
    inside = torch.arange(20) < torch.tensor([[20], [12]])
    frames = condition({"text": ["abca", "abca"]}, inside).frames
    shares = [frames[0, :20].unflatten(0, (4, 5)), frames[1, :12].unflatten(0, (4, 3))]
    for said in shares:
        assert torch.equal(said, said[:, :1].expand_as(said))  # the same in all of a share
    torch.testing.assert_close(shares[0][:, 0], shares[1][:, 0])
    assert not frames[1, 12:].any()
    assert len(shares[0][:, 0].unique(dim=0)) == 4  # the second a is not the first
    assert len(condition({"text": ["ab" * 20]}, inside[:1]).frames.unique(dim=1)[0]) == 20  # two in a frame


def test_long_files_are_filled_in_piece_by_piece():
    flow = small_flow("aligned_phones", "prompt", seconds=0.2)  # 20 frames
    known = torch.randn(2, C, 90, generator=torch.Generator().manual_seed(0))
    span = torch.zeros(2, 90, dtype=torch.bool)
    span[0, 10:14] = span[0, 60:63] = span[1, 5:40] = True
    given = {"phones": [[("a", 0.1 * n) for n in range(9)], [("b", 0.0)]], "prompt": torch.randn(2, C, 7)}
    given["lengths"] = torch.tensor([90, 50])
    shares = []
    out = flow.inpaint(known, span, given, steps=2, seed=1, progress=shares.append)
    outside = ~span[:, None].expand_as(known)
    assert torch.equal(out[outside], known[outside])
    assert bool((out[~outside] != known[~outside]).all())
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    # what is further away than a piece is long has no part in it
    far = known.clone()
    far[0, :, 30:40] += 1
    again = flow.inpaint(far, span, given, steps=2, seed=1)
    assert torch.equal(again[0, :, 10:14], out[0, :, 10:14])
    near = known.clone()
    near[0, :, 9] += 1
    assert not torch.equal(flow.inpaint(near, span, given, steps=2, seed=1)[0, :, 10:14], out[0, :, 10:14])


def test_pairs_are_turned_as_in_the_codecs_transformer():
    x, rotation = torch.randn(2, 33, 2, 3, 10), rotary(torch.arange(33), 10, 10_000.0)
    torch.testing.assert_close(turned(x, torch.complex(*rotation)), rotate(x, rotation), rtol=1e-6, atol=1e-6)


def test_phones_of_a_piece():
    phones = [("a", 0.0), ("b", 0.1), ("c", 0.3)]
    assert cut_phones(phones, 0.0, 0.2) == [("a", 0.0), ("b", 0.1)]
    assert cut_phones(phones, 0.2, 0.5) == [("b", 0.0), ("c", pytest.approx(0.1))]
    assert cut_phones(phones, 0.3, 0.5) == [("c", 0.0)]


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("characters", {"text": []}, "trained to be told text, and the text given is empty"),
        ("characters", {"text": ["abc", "  "]}, "the text given is empty"),
        ("characters", {"text": ["abc"]}, "1 text for 2 recordings"),
        ("characters", {"text": ["abz", "a"]}, "not trained on the character 'z'; valid: a b c"),
        ("characters", {"text": ["a" * 41, "a"]}, "41 characters are too many .* room for 40"),
        ("characters", {"text": ["a", "a" * 11], "lengths": torch.tensor([20, 5])}, "recording 2 of 2 .* too fast"),
        ("phones", {"phones": [[("x", None)], [("a", None)]]}, "not trained on the phone 'x'"),
        ("aligned_phones", {"phones": [[("a", None)], [("a", 0.0)]]}, "say when each of them starts"),
        ("prompt", {"prompt": None}, "give a recording of the voice"),
        ("prompt", {"prompt": torch.zeros(2, C, 0)}, "shorter than a latent frame"),
        ("prompt_attention", {"prompt": torch.zeros(1, C, 5)}, "1 prompts for 2 recordings"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(name, change, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        small_flow(name).inpaint(*example(), told() | change, steps=1)
    assert "\n" not in str(error.value)


def test_text_that_cannot_be_cut_is_refused():
    known, span = example(1, 30)
    with pytest.raises(InputError, match=r"0.3 s are more than the 0.2 s that this model was trained on"):
        small_flow("characters", seconds=0.2).inpaint(known, span, told(1), steps=1)
    with pytest.raises(InputError, match="phones without times cannot be cut"):
        small_flow("phones", seconds=0.2).inpaint(known, span, {"phones": [[("a", None)]]}, steps=1)
    with pytest.raises(ValueError, match=r"\[B, 3, F\]"):
        small_flow().inpaint(known[:, :2], span)


def test_data_prediction_reaches_what_it_says():
    """One step of Euler from noise ends where the network says, and many end there, too, if it always says the same."""
    flow, (known, span) = small_flow(objective=NaturalSpeech2()), example()
    said = torch.randn(known.shape)
    flow.forward = lambda *_: said
    for steps in (1, 5):
        out = flow.inpaint(known, span, steps=steps, guidance=1.0)
        torch.testing.assert_close(out, torch.where(span[:, None], said, known))
