"""The inpainting benchmark: bounds, and flow models between them."""

import math
from dataclasses import replace

import pytest
import torch

from codec.flow.conditioning import Conditions
from codec.flow.dit import DiT
from codec.flow.evaluation import benchmark as module
from codec.flow.evaluation.benchmark import InpaintingBenchmark, interpolation, prompt
from codec.flow.evaluation.table import CEILING, FLOOR, RECORDING, interval, relative_to_bounds
from codec.flow.model import FlowModel
from codec.flow.objective import FlowMatching
from codec.flow.speaker_prompt import PromptVector
from codec.flow.text_conditioning import AlignedPhones, Characters
from codec.utils.errors import InputError
from tests.helpers.judges import HOP, Space
from tests.helpers.tones import RATE


def flow(*names: str, seconds: float = 4.0, phones: str = "a e i s") -> FlowModel:
    torch.manual_seed(0)
    sizes = {"frame_rate": RATE / HOP, "width": 16, "hidden": 8}
    members = {
        "phones": lambda: AlignedPhones(phones, **sizes),
        "text": lambda: Characters("abc", **sizes),
        "prompt": lambda: PromptVector(HOP + 2, 16, hidden=8, blocks=1),
    }
    condition = Conditions({name: members[name]() for name in names}, 16)
    network = DiT(HOP + 2, 16, layers=1, heads=2, hidden=16)
    made = FlowModel(network, condition, FlowMatching(), RATE, HOP, "f" * 32, "pre", seconds).eval()
    made.std.fill_(4.0)  # as Space normalises
    return made


def test_interpolation_is_a_straight_line_that_does_not_read_the_span():
    line = torch.randn(3, 1) * torch.arange(10.0) + torch.randn(3, 1)
    span = torch.tensor([n in (1, 2, 5, 6, 7, 8) for n in range(10)])
    torch.testing.assert_close(interpolation(torch.where(span, torch.nan, line), span), line, atol=1e-5, rtol=1e-5)
    known, span = torch.randn(2, 6), torch.tensor([True, True, False, False, True, True])
    assert torch.equal(interpolation(known, span), known[:, [2, 2, 2, 3, 3, 3]])  # at the ends the nearest repeats
    with pytest.raises(InputError, match="whole recording"):
        interpolation(torch.zeros(2, 4), torch.ones(4, dtype=torch.bool))


def test_ceiling_and_floor(reports):
    means = {name: interval(report, "span_per").mean for name, report in reports.items()}
    assert interval(reports[RECORDING], "span_per") == interval(reports[CEILING], "span_per")  # a codec without loss
    assert means[CEILING] < 0.1
    assert means[FLOOR] > 0.5
    assert means["silence"] == pytest.approx(1, abs=0.2)  # half a phone at an edge may be recognised
    assert [relative_to_bounds(reports, name).mean for name in (CEILING, FLOOR)] == [0, 1]
    for name, report in reports.items():
        assert (interval(report, "span_mcd").mean < 1e-3) == (name in (CEILING, RECORDING)) or name == "silence"
        assert (report.facts["frechet"] < 1e-3) == (name in (CEILING, RECORDING))
    assert interval(reports[FLOOR], "span_speaker").mean < interval(reports[CEILING], "span_speaker").mean


def test_a_model_that_knows_the_answer_is_the_ceiling_whatever_its_statistics(benchmark, reports, monkeypatch):
    """Batches hold every recording once, with noise of its own and with its conditioning."""
    monkeypatch.setattr(module, "BATCH", 3)
    knowing, calls = flow("phones", "prompt"), []
    knowing.inpaint = lambda known, span, given, seed, **_: calls.append((known, given, seed)) or known
    knowing.std.fill_(7.0)
    knowing.mean.fill_(0.3)
    report = benchmark.evaluate(knowing, "knowing", steps=3, guidance=1.5, seed=4)
    assert interval(report, "span_per") == interval(reports[CEILING], "span_per")
    facts = {"system": "knowing", "steps": 3, "guidance": 1.5, "sampler": "euler", "seed": 4, "frame_rate": 50}
    assert facts.items() <= report.facts.items()
    assert [(len(known), seed) for known, _, seed in calls] == [(3, 32), (3, 35), (2, 38)]
    x = Space().denormalise(benchmark.masked[0].known)
    assert any(torch.allclose(one[:, : x.shape[1]], (x - 0.3) / 7, atol=1e-5) for known, *_ in calls for one in known)
    given = [pair for _, g, _ in calls for pair in zip(g["phones"], g["lengths"].tolist(), strict=True)]
    assert sorted(given) == sorted((one.recording.phones, len(one.span)) for one in benchmark.masked)


def test_an_untrained_model_is_no_better_than_the_floor(benchmark, reports):
    report, again, other = (benchmark.evaluate(flow("phones", "prompt"), steps=2, seed=seed) for seed in (0, 0, 1))
    assert interval(report, "span_per").mean > max(0.4, 0.5 * interval(reports[FLOOR], "span_per").mean)
    assert report.clips.equals(again.clips)
    assert not report.clips.equals(other.clips)


def test_prompts_lie_far_from_the_span():
    x, span = torch.arange(10.0)[None], torch.zeros(10, dtype=torch.bool)
    span[2:5] = True
    assert prompt(x, span, 9)[0].tolist() == [5, 6, 7, 8, 9]
    assert prompt(x, span, 3)[0].tolist() == [7, 8, 9]
    assert prompt(x, span.flip(0), 3)[0].tolist() == [0, 1, 2]
    assert prompt(x, torch.arange(10) < 9, 3)[0].tolist() == [9]


class WideSpace(Space):
    """Each frame depends on its neighbours, too."""

    def encode(self, wav):
        x = super().encode(wav)
        return x + 0.1 * (x.roll(1, -1) + x.roll(-1, -1))


def test_known_latents_have_traces_of_the_span_unless_that_is_silenced(benchmark, recordings):
    def masked(silenced: bool, gain: float):
        """With another level in the span."""
        changed = []
        for recording in recordings:
            wav, (start, end) = recording.wav.copy(), (round(RATE * time) for time in recording.span)
            wav[start:end] *= gain
            changed.append(replace(recording, wav=wav))
        return InpaintingBenchmark(WideSpace(), changed, benchmark.panel, silenced=silenced).masked

    for usual, loud, silenced, both in zip(masked(False, 1), masked(False, 2), masked(True, 1), masked(True, 2)):
        outside = ~usual.span
        assert not torch.equal(usual.known[:, outside], loud.known[:, outside])
        assert torch.equal(silenced.known[:, outside], both.known[:, outside])
        assert torch.equal(usual.known[:, usual.span], silenced.known[:, usual.span])  # the ceiling's


def test_a_recording_without_conditioning_is_a_failure_and_all_of_them_an_error(benchmark, recordings):
    with pytest.raises(InputError, match="none of 8 recordings: the recording is with unknown phones"):
        benchmark.evaluate(flow("phones", phones="a e i"))  # not s
    with pytest.raises(InputError, match="without text"):
        benchmark.evaluate(flow("text"))
    with pytest.raises(InputError, match="longer than the 1 s"):
        benchmark.evaluate(flow("text", seconds=1.0))
    mute = [replace(recordings[0], clip="mute", phones=[]), recordings[1]]
    report = InpaintingBenchmark(benchmark.space, mute, benchmark.panel).evaluate(flow("phones"), steps=1)
    assert {"clip": "mute", "metric": "system", "reason": "the recording is without phones"} in report.failures
    assert [math.isnan(value) for value in report.clips["span_mcd"]] == [True, False]


def test_systems_that_change_the_known_are_refused(benchmark):
    with pytest.raises(ValueError, match="outside of the span"):
        benchmark.score("all", lambda masked: [one.known + 1 for one in masked])
