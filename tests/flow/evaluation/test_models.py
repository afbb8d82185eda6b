"""Flow models before the judges."""

import math

import pytest
import torch

from codec.flow.conditioning import Conditions
from codec.flow.dit import DiT
from codec.flow.evaluation import models
from codec.flow.evaluation.models import Trial, filled, given, prompt
from codec.flow.evaluation.table import CEILING, FLOOR, RECORDING, interval, way
from codec.flow.model import FlowModel
from codec.flow.objective import FlowMatching
from codec.flow.speaker_prompt import PromptVector
from codec.flow.text_conditioning import AlignedPhones, Characters
from codec.utils.errors import InputError
from tests.helpers.judges import HOP, Space
from tests.helpers.tones import RATE


def flow(*names: str, seconds: float = 4.0, phones: str = "a e i s") -> FlowModel:
    torch.manual_seed(0)
    told = {"frame_rate": RATE / HOP, "width": 16, "hidden": 8}
    members = {
        "phones": lambda: AlignedPhones(phones, **told),
        "text": lambda: Characters("abc", **told),
        "prompt": lambda: PromptVector(HOP + 2, 16, hidden=8, blocks=1),
    }
    condition = Conditions({name: members[name]() for name in names}, 16)
    network = DiT(HOP + 2, 16, layers=1, heads=2, hidden=16)
    made = FlowModel(network, condition, FlowMatching(), RATE, HOP, "f" * 32, "pre", seconds).eval()
    made.std.fill_(4.0)  # as Space normalises
    return made


class Told(FlowModel):
    """Instead of sampling, notes what it is given, and knows what is right."""

    def inpaint(self, known, span, given, *, steps, guidance, sampler, seed, progress):
        self.calls.append((known, span, given, seed))
        progress(1.0)
        return self.answer(known, span)


def told(made: FlowModel, answer) -> FlowModel:
    made.__class__, made.calls, made.answer = Told, [], answer
    return made


def test_ceiling_and_floor_are_where_they_belong(reports):
    means = {name: interval(report, "span_per").mean for name, report in reports.items()}
    assert means[CEILING] == means[RECORDING] < 0.1  # this codec loses nothing
    assert means[FLOOR] > 0.5
    assert means["silence"] == pytest.approx(1, abs=0.2)  # half a phone at an edge may be heard
    assert (way(reports, CEILING).mean, way(reports, FLOOR).mean) == (0, 1)
    for name, report in reports.items():
        assert (interval(report, "span_mcd").mean < 1e-3) == (name in (CEILING, RECORDING)) or name == "silence"
        assert (report.facts["frechet"] < 1e-3) == (name in (CEILING, RECORDING))
    assert interval(reports[FLOOR], "span_speaker").mean < interval(reports[CEILING], "span_speaker").mean


def test_a_model_that_knows_the_answer_is_the_ceiling_whatever_its_statistics(trial, reports):
    knowing = told(flow(), lambda known, span: known)
    knowing.std.fill_(7.0)
    knowing.mean.fill_(0.3)
    report = trial.judge(knowing, "knowing", steps=3, guidance=1.5, seed=4)
    assert interval(report, "span_per") == interval(reports[CEILING], "span_per")
    facts = {name: report.facts[name] for name in ("system", "steps", "guidance", "sampler", "seed", "frame_rate")}
    assert facts == {"system": "knowing", "steps": 3, "guidance": 1.5, "sampler": "euler", "seed": 4, "frame_rate": 50}
    ((known, *_),) = knowing.calls
    x = Space().denormalise(trial.hidden[0].known)
    assert any(torch.allclose(one[:, : x.shape[1]], (x - 0.3) / 7, atol=1e-5) for one in known)


def test_a_model_that_knows_nothing_is_no_better_than_the_floor(trial, reports):
    report = trial.judge(flow("phones", "prompt"), steps=2)
    assert interval(report, "span_per").mean > 0.5 * interval(reports[FLOOR], "span_per").mean
    assert interval(report, "span_per").mean > 0.4
    again = trial.judge(flow("phones", "prompt"), steps=2)
    assert report.clips.equals(again.clips)
    other = trial.judge(flow("phones", "prompt"), steps=2, seed=1)
    assert not report.clips.equals(other.clips)


def test_batches_hold_every_recording_once_with_noise_of_its_own(trial, monkeypatch):
    monkeypatch.setattr(models, "BATCH", 3)
    shares: list[float] = []
    noted = told(flow("phones"), lambda known, span: torch.where(span[:, None], 0.0, known))
    found = filled(noted, trial.space, trial.hidden, 5, shares.append, steps=1, guidance=1.0, sampler="euler")
    assert [len(known) for known, *_ in noted.calls] == [3, 3, 2]
    assert [seed for *_, seed in noted.calls] == [40, 43, 46]
    assert shares == pytest.approx([3 / 8, 6 / 8, 1])
    for hidden, latents in zip(trial.hidden, found, strict=True):
        assert torch.equal(latents, hidden.known * ~hidden.span)


def test_a_model_is_told_what_its_recording_has(trial):
    prompted = flow("phones", "prompt")
    batch = trial.hidden[:2]
    words = given(prompted, batch, [one.known for one in batch])
    assert words["phones"] == [one.recording.phones for one in batch]
    assert words["lengths"].tolist() == [len(one.span) for one in batch]
    assert words["prompt"].shape[:2] == (2, HOP + 2)
    assert "prompt" not in given(flow(), batch, [one.known for one in batch])


def test_prompts_come_from_the_longer_side_far_from_the_span():
    x, span = torch.arange(10.0)[None], torch.zeros(10, dtype=torch.bool)
    span[2:5] = True
    assert prompt(x, span, 9)[0].tolist() == [5, 6, 7, 8, 9]
    assert prompt(x, span, 3)[0].tolist() == [7, 8, 9]
    assert prompt(x, span.flip(0), 3)[0].tolist() == [0, 1, 2]
    span[:] = True
    span[9] = False
    assert prompt(x, span, 3)[0].tolist() == [9]


class FarHearing(Space):
    """Each frame hears its neighbours, too."""

    def encode(self, wav):
        x = super().encode(wav)
        return x + 0.1 * (x.roll(1, -1) + x.roll(-1, -1))


def test_what_is_known_has_traces_of_the_span_unless_that_is_silenced(trial, recordings):
    def hidden(silenced: bool, gain: float):
        """With another loudness in the span."""
        changed = []
        for recording in recordings:
            wav, (start, end) = recording.wav.copy(), (round(RATE * time) for time in recording.span)
            wav[start:end] *= gain
            changed.append(recording.__class__(**(vars(recording) | {"wav": wav})))
        return Trial(FarHearing(), changed, trial.panel, silenced=silenced).hidden

    usual, loud, silenced, both = hidden(False, 1), hidden(False, 2), hidden(True, 1), hidden(True, 2)
    for n, one in enumerate(usual):
        outside, span = ~one.span, one.span
        assert not torch.equal(one.known[:, outside], loud[n].known[:, outside])
        assert torch.equal(silenced[n].known[:, outside], both[n].known[:, outside])
        assert torch.equal(one.known[:, span], silenced[n].known[:, span])  # the ceiling's


def test_what_a_model_cannot_be_told_is_a_failure_and_all_of_it_an_error(trial, recordings):
    odd = flow("phones", phones="a e i")  # not s
    with pytest.raises(InputError, match="any of 8 recordings: the recording is with unknown phones"):
        trial.judge(odd)
    with pytest.raises(InputError, match="without text"):
        trial.judge(flow("text"))
    mute = [recordings[0].__class__(**(vars(recordings[0]) | {"clip": "mute", "phones": []})), recordings[1]]
    report = Trial(trial.space, mute, trial.panel).judge(flow("phones"), steps=1)
    assert {"clip": "mute", "metric": "system", "reason": "the recording is without phones"} in report.failures
    assert [math.isnan(value) for value in report.clips["span_mcd"]] == [True, False]
    short = flow("text", seconds=1.0)
    with pytest.raises(InputError, match="longer than the 1 s"):
        trial.judge(short)


def test_other_latents_and_systems_that_change_the_known_are_refused(trial):
    other = flow()
    other.fingerprint = "e" * 32
    with pytest.raises(InputError, match="trained on other latents"):
        trial.judge(other)
    with pytest.raises(ValueError, match="outside of the span"):
        trial.score("all", lambda hidden: [one.known + 1 for one in hidden])
