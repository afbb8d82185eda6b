"""evaluate: every clip is scored or listed as a failure, and the first ones are written as audio."""

import numpy as np
import pytest
import soundfile
import torch

from codec.evaluation.baselines.base import System
from codec.evaluation.evaluate import evaluate, file_name
from codec.evaluation.metrics.table import METRICS
from tests.helpers.speech import RATE, Rounding, clip

SI_SDR = {"si_sdr": METRICS["si_sdr"]}


def score(system, clips, **options):
    return evaluate(system, clips, RATE, workers=0, metrics=SI_SDR, **options)


def test_unreadable_files_and_clips_on_which_the_system_raises_are_failures():
    class FailsIfLoud(Rounding):
        def reconstruct(self, wav, sample_rate):
            if wav.abs().max() > 0.9:
                raise RuntimeError("no latents")
            return super().reconstruct(wav, sample_rate)

    unread, loud = [], {**clip(1), "wav": torch.ones(1, RATE)}

    def clips():
        yield from (clip(0), loud, clip(2))
        unread.append(("broken.wav", "no header"))

    report = score(FailsIfLoud(), clips(), unread=[[("bad.wav", "empty")], unread])
    failures = [(one["clip"], one["metric"], one["reason"]) for one in report.failures]
    assert sorted(failures) == [
        ("bad.wav", "file", "empty"),
        ("broken.wav", "file", "no header"),
        ("s1/take 1", "system", "RuntimeError: no latents"),
    ]
    assert report.clips["si_sdr"].isna().tolist() == [False, True, False]
    assert report.summary()["si_sdr"]["failed"] == 1


def test_misuse_is_an_error():
    class Short(System):
        def reconstruct(self, wav, sample_rate):
            return wav[..., :-1]

    with pytest.raises(ValueError, match="length"):
        score(Short(), [clip(0)])
    with pytest.raises(ValueError, match="no clip"):
        score(Rounding(), [])
    with pytest.raises(ValueError, match="mono"):
        score(Rounding(), [{"wav": torch.zeros(2, RATE)}])


@pytest.mark.parametrize("name", ["6 bits", "reference"])
def test_audio_of_the_first_clips_is_written(tmp_path, name):
    clips = [clip(n, 0.2) for n in range(3)]
    report = score(Rounding(), clips, name=name, folder=tmp_path, audio=2)
    assert list(report.audio) == ["s0/take 0", "s1/take 1"]
    files = [file for pair in report.audio.values() for file in pair.values()]
    assert files[0] == "audio/00_s0_take_0_reference.flac"
    assert {f"audio/{path.name}" for path in (tmp_path / "audio").iterdir()} == set(files)
    if name != "reference":
        decoded = tmp_path / report.audio["s0/take 0"]["decoded"]
        wav, rate = soundfile.read(decoded)
        assert (rate, soundfile.info(decoded).subtype) == (RATE, "PCM_16")
        np.testing.assert_allclose(wav, Rounding().reconstruct(clips[0]["wav"][None], RATE)[0, 0], atol=1 / 32768)


def test_a_system_of_another_rate_is_scored_at_the_rate_of_the_clips():
    class Recording(Rounding):
        def reconstruct(self, wav, sample_rate):
            self.samples = wav.shape[-1]
            return super().reconstruct(wav, sample_rate)

    system = Recording(16, sample_rate=24_000)
    report = score(system, [clip(0, 0.7003)])
    assert system.samples == pytest.approx(0.7003 * 24_000, abs=2)
    assert report.facts["sample_rate"] == RATE
    assert report.clips["si_sdr"][0] > 40  # resampling costs next to nothing


def test_clips_and_files_have_unique_names():
    assert list(score(Rounding(), [clip(0), clip(0)]).clips["clip"]) == ["s0/take 0", "s0/take 0 (1)"]
    long = "x" * 100
    assert file_name(f"disc=msd {long}") != file_name(f"disc=mfd {long}")
    assert len(file_name(long)) == 80
    assert file_name("disc=msd+mfd n_q=4") == "disc=msd+mfd_n_q=4"
