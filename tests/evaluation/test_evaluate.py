"""Systems on clips: every clip is scored or accounted for."""

import json

import numpy as np
import pytest
import soundfile
import torch

from codec.evaluation.baselines.base import System
from codec.evaluation.evaluate import clip_name, evaluate, file_name
from codec.evaluation.metrics.table import METRICS
from tests.helpers.speech import RATE, Rounding, clip

MEL = {"si_sdr": METRICS["si_sdr"]}
FAST = {name: METRICS[name] for name in ("stoi", "si_sdr", "mel_distance")}


def test_a_clip_on_which_the_system_raises_is_listed():
    class Moody(Rounding):
        def reconstruct(self, wav, sample_rate):
            if wav.abs().max() > 0.9:
                raise RuntimeError("no latents today")
            return super().reconstruct(wav, sample_rate)

    clips = [clip(0), {**clip(1), "wav": torch.ones(1, RATE)}, clip(2)]
    report = evaluate(Moody(), clips, RATE, {}, workers=0, metrics=FAST)
    reason = "RuntimeError: no latents today"
    assert report.failures == [{"clip": "s1/take 1", "metric": "system", "reason": reason}]
    assert report.clips.loc[1, list(FAST)].isna().all()
    assert report.clips.loc[[0, 2], list(FAST)].notna().all(axis=None)
    assert report.summary()["stoi"]["failed"] == 1


def test_a_system_that_always_raises_still_reports(tmp_path):
    class Broken(System):
        def reconstruct(self, wav, sample_rate):
            raise RuntimeError("broken")

    report = evaluate(Broken(), [clip(0)], RATE, {}, workers=0, metrics=FAST)
    assert report.summary()["stoi"]["n"] == 0
    assert json.loads(report.write(tmp_path).read_text(encoding="utf-8"))["summary"]["stoi"]["mean"] is None


def test_another_length_is_an_error():
    class Short(System):
        def reconstruct(self, wav, sample_rate):
            return wav[..., :-1]

    with pytest.raises(ValueError, match="must return the length it was given"):
        evaluate(Short(), [clip(0)], RATE, {}, workers=0)
    with pytest.raises(ValueError, match="no clip"):
        evaluate(Rounding(), [], RATE, {}, workers=0)
    with pytest.raises(ValueError, match="mono"):
        evaluate(Rounding(), [{"wav": torch.zeros(2, RATE)}], RATE, {}, workers=0)


def test_the_first_pairs_can_be_heard(tmp_path):
    clips = [clip(0), clip(1), clip(2)]
    report = evaluate(Rounding(), clips, RATE, name="6 bits", workers=0, metrics=MEL, folder=tmp_path, audio=2)
    assert report.audio == {
        f"s{n}/take {n}": {
            "reference": f"audio/0{n}_s{n}_take_{n}_reference.flac",
            "decoded": f"audio/0{n}_s{n}_take_{n}_6_bits.flac",
        }
        for n in (0, 1)
    }
    files = sorted(file for pair in report.audio.values() for file in pair.values())
    assert sorted(f"audio/{path.name}" for path in (tmp_path / "audio").iterdir()) == files
    decoded = tmp_path / report.audio["s0/take 0"]["decoded"]
    wav, rate = soundfile.read(decoded)
    assert (rate, soundfile.info(decoded).subtype) == (RATE, "PCM_16")
    np.testing.assert_allclose(wav, Rounding().reconstruct(clips[0]["wav"][None], RATE)[0, 0], atol=1 / 32768)


def test_clips_of_one_name_stay_apart():
    report = evaluate(Rounding(), [clip(0), clip(0)], RATE, workers=0, metrics=MEL)
    assert list(report.clips["clip"]) == ["s0/take 0", "s0/take 0 (1)"]


def test_a_system_of_another_rate_is_scored_at_the_clips():
    class Listening(Rounding):
        heard = None

        def reconstruct(self, wav, sample_rate):
            self.heard = wav.shape[-1]
            return super().reconstruct(wav, sample_rate)

    system = Listening(16, sample_rate=24_000)
    report = evaluate(system, [clip(0, 0.7003)], RATE, workers=0, metrics=MEL)
    assert system.heard == pytest.approx(0.7003 * 24_000, abs=2)
    assert report.facts["sample_rate"] == RATE
    assert report.clips["si_sdr"][0] > 40  # there and back costs next to nothing


def test_files_of_long_and_odd_names_stay_apart():
    long = "x" * 100
    assert file_name(f"disc=msd {long}") != file_name(f"disc=mfd {long}")
    assert len(file_name(long)) == 80
    assert file_name("disc=msd+mfd n_q=4") == "disc=msd+mfd_n_q=4"
    assert clip_name({"file": "a/utt.1"}, 0) == "a/utt.1"
    assert clip_name({"file": "a/utt.FLAC"}, 0) == "a/utt"


def test_what_could_not_be_read_is_a_failure():
    unread = []

    def clips():
        yield clip(0)
        unread.append(("broken.wav", "no header"))

    report = evaluate(Rounding(), clips(), RATE, workers=0, metrics=MEL, unread=[[("bad.wav", "empty")], unread])
    assert [(f["clip"], f["metric"]) for f in report.failures] == [("bad.wav", "file"), ("broken.wav", "file")]


def test_a_system_may_be_called_reference(tmp_path):
    report = evaluate(Rounding(), [clip(0)], RATE, name="reference", workers=0, metrics=MEL, folder=tmp_path)
    assert set(report.audio["s0/take 0"]) == {"reference", "decoded"}
