"""Inpainting: known frames are bit-identical, spans are not read, padding and windows have no influence."""

import pytest
import torch

from codec.flow.objective import NaturalSpeech2, on_path
from codec.flow.text_conditioning import SpreadCharacters
from codec.utils.errors import InputError
from tests.helpers.flow_parts import CONDITIONS, TEXT, C, conditioning, example, small_flow

ALL = tuple(CONDITIONS)


@pytest.mark.parametrize(("guidance", "sampler"), [(0.0, "euler"), (1.0, "midpoint"), (3.0, "euler")])
def test_known_frames_are_bit_identical_and_samples_depend_on_the_seed(guidance, sampler):
    flow, (known, span) = small_flow(*ALL), example()
    options = dict(steps=3, guidance=guidance, sampler=sampler)
    shares = []
    out = flow.inpaint(known, span, conditioning(), seed=1, progress=shares.append, **options)
    outside = ~span[:, None].expand_as(known)
    assert torch.equal(out[outside], known[outside])
    assert bool(out.isfinite().all())
    assert not torch.equal(out, flow.inpaint(known, span, conditioning(), seed=2, **options))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    spoilt = torch.where(outside, known, torch.nan)  # the span is not read, and the same seed gives the same
    assert torch.equal(out, flow.inpaint(spoilt, span, conditioning(), seed=1, **options))


def velocity(flow, known, span, given, conditional: bool = True, show_context: bool = True, lengths=None):
    """The network's output at t = 0.3, with the same noise for every number of frames."""
    batch, _, frames = known.shape
    noise = torch.randn(batch, C, 100, generator=torch.Generator().manual_seed(9))[..., :frames]
    valid = torch.arange(frames) < torch.tensor(lengths or [frames] * batch)[:, None]
    t, flags = torch.full((batch,), 0.3), torch.ones(batch, dtype=torch.bool)
    embeddings = flow.condition(given, valid).where(flags & conditional)
    with torch.no_grad():
        return flow(on_path(known, noise, t), t, known, span, valid, embeddings, flags & show_context)


def test_the_unconditional_side_depends_on_neither_context_nor_conditioning():
    flow, (known, span), (other, _) = small_flow(*ALL), example(), example(seed=5)
    changed = torch.where(span[:, None], known, other)
    more = conditioning(seed=3) | {"text": ["c", "cc"], "phones": [[("c", 0.0)], [("a", 0.1)]]}
    free = velocity(flow, known, span, conditioning(), False, False)
    assert torch.equal(free, velocity(flow, changed, span, more, False, False))
    spoilt = torch.where(span[:, None], known, torch.nan)
    assert torch.equal(free, velocity(flow, spoilt, span, more, False, False))
    full = velocity(flow, known, span, conditioning())
    assert not torch.allclose(full, velocity(flow, changed, span, conditioning()), atol=1e-4)
    assert not torch.allclose(full, velocity(flow, known, span, more), atol=1e-4)


@pytest.mark.parametrize("names", [(), *((name,) for name in CONDITIONS), ("phones", "prompt_attention")])
def test_padding_has_no_influence(names):
    """Neither that of latents and span nor that of the prompt, in a pass and in sampling."""
    flow = small_flow(*names)
    known, span = example(frames=20)
    short, given = known[:1, :, :13], conditioning(1)
    alone = velocity(flow, short, span[:1, :13], given)
    wide = torch.cat([torch.cat([short, torch.full((1, C, 7), 1e3)], dim=-1), known[1:]])
    both = conditioning() | {"prompt": torch.cat([conditioning()["prompt"], torch.full((2, C, 4), 1e3)], -1)}
    both["prompt_lengths"] = torch.tensor([7, 7])
    spans = torch.cat([torch.cat([span[:1, :13], torch.ones(1, 7, dtype=torch.bool)], dim=1), span[1:]])
    padded = velocity(flow, wide, spans, both, lengths=[13, 20])
    torch.testing.assert_close(padded[:1, :, :13], alone, atol=1e-5, rtol=1e-5)
    assert not padded[0, :, 13:].any()
    options = dict(steps=2, guidance=2.0, seed=4)
    sampled = flow.inpaint(wide, spans, both | {"lengths": torch.tensor([13, 20])}, **options)
    one = flow.inpaint(short, span[:1, :13], given, **options)
    torch.testing.assert_close(sampled[:1, :, :13], one, atol=1e-5, rtol=1e-5)
    assert torch.equal(sampled[0, :, 13:], wide[0, :, 13:])


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_output_depends_on_each_condition(name):
    change = {"prompt": conditioning()["prompt"].flip(1)}
    if name in TEXT:
        phones = [("a", 0.0), ("b", 0.06)] if name == "aligned_phones" else [("b", 0.0), ("a", 0.05)]
        change = {"text": ["abc cac", "b a"], "phones": [phones, [("c", 0.02)]]}
    flow, (known, span) = small_flow(name), example()
    before, after = (velocity(flow, known, span, given) for given in (conditioning(), conditioning() | change))
    assert not torch.allclose(before[0], after[0], atol=1e-4)
    if name in TEXT:  # the change is in the first example only
        torch.testing.assert_close(before[1], after[1])


def test_characters_are_spread_evenly_over_each_recording():
    """Recordings of different lengths with the same text have the same embeddings in equal shares of their frames."""
    torch.manual_seed(0)
    condition = SpreadCharacters("abc", frame_rate=100, width=16, hidden=8, blocks=0, per_second=200.0)
    valid = torch.arange(20) < torch.tensor([[20], [12]])
    frames = condition({"text": ["abca", "abca"]}, valid).frames
    shares = [frames[0, :20].unflatten(0, (4, 5)), frames[1, :12].unflatten(0, (4, 3))]
    for share in shares:
        assert torch.equal(share, share[:, :1].expand_as(share))
    torch.testing.assert_close(shares[0][:, 0], shares[1][:, 0])
    assert not frames[1, 12:].any()
    assert len(shares[0][:, 0].unique(dim=0)) == 4  # by position, too: the second a is not the first
    assert len(condition({"text": ["ab" * 20]}, valid[:1]).frames.unique(dim=1)[0]) == 20  # two per frame


def test_long_recordings_are_inpainted_in_windows():
    flow = small_flow("aligned_phones", "prompt", seconds=0.2)  # 20 frames
    known = torch.randn(2, C, 90, generator=torch.Generator().manual_seed(0))
    span = torch.zeros(2, 90, dtype=torch.bool)
    span[0, 10:14] = span[0, 60:63] = span[1, 5:40] = True
    given = {"phones": [[("a", 0.1 * n) for n in range(9)], [("b", 0.0)]], "prompt": torch.randn(2, C, 7)}
    given["lengths"] = torch.tensor([90, 50])
    out = flow.inpaint(known, span, given, steps=2, seed=1)
    outside = ~span[:, None].expand_as(known)
    assert torch.equal(out[outside], known[outside])
    assert bool((out[~outside] != known[~outside]).all())
    for changed, equal in ((slice(30, 40), True), (slice(9, 10), False)):  # outside and inside of the window
        other = known.clone()
        other[0, :, changed] += 1
        again = flow.inpaint(other, span, given, steps=2, seed=1)
        assert torch.equal(again[0, :, 10:14], out[0, :, 10:14]) == equal


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("characters", {"text": ["abc"]}, "1 text for 2 recordings"),
        ("characters", {"text": ["a" * 41, "a"]}, "41 characters .* 40 fit"),
        ("characters", {"text": ["a", "a" * 11], "lengths": torch.tensor([20, 5])}, "recording 2 of 2 .* too fast"),
        ("aligned_phones", {"phones": [[("a", None)], [("a", 0.0)]]}, "start time"),
        ("prompt_attention", {"prompt": torch.zeros(1, C, 5)}, "1 prompts for 2 recordings"),
    ],
)
def test_conditioning_that_does_not_fit_is_an_input_error(name, change, sentence):
    with pytest.raises(InputError, match=sentence):
        small_flow(name).inpaint(*example(), conditioning() | change, steps=1)


def test_conditioning_that_cannot_be_cut_is_refused():
    known, span = example(1, 30)
    with pytest.raises(InputError, match=r"0.3 s are more than the 0.2 s"):
        small_flow("characters", seconds=0.2).inpaint(known, span, conditioning(1), steps=1)
    with pytest.raises(InputError, match="without times cannot be cut"):
        small_flow("phones", seconds=0.2).inpaint(known, span, {"phones": [[("a", None)]]}, steps=1)
    with pytest.raises(ValueError, match=r"\[B, 3, F\]"):
        small_flow().inpaint(known[:, :2], span)


def test_a_constant_prediction_of_data_is_the_sample():
    """In one step, and in many."""
    flow, (known, span) = small_flow(objective=NaturalSpeech2()), example()
    predicted = torch.randn(known.shape)
    flow.forward = lambda *_: predicted
    for steps in (1, 5):
        out = flow.inpaint(known, span, steps=steps, guidance=1.0)
        torch.testing.assert_close(out, torch.where(span[:, None], predicted, known))
