"""The speaker probe: voices that differ lie apart, whatever they say."""

import numpy as np
import pytest
import scipy.signal
import torch

from codec.data.folder import FolderCorpus
from codec.evaluation.judges import speaker
from codec.evaluation.judges.speaker import SpeakerProbe, discriminants, equal_error_rate, pooled
from codec.evaluation.metrics.base import MetricError
from codec.utils.errors import InputError

RATE = 16_000
VOICES = 12
SPAN = 0.5, 1.2  # seconds


def utterance(voice: float, number: int, seconds: float = 2.0) -> torch.Tensor:
    """[1, T]: noise whose two resonances are the voice's, in syllables."""
    rng = np.random.default_rng((round(10 * voice), number))
    wav = rng.standard_normal(int(seconds * RATE))
    for centre in (400 + 60 * voice, 2000 + 400 * (voice * 5 % VOICES)):
        b, a = scipy.signal.iirpeak(centre, 3, fs=RATE)
        wav = wav + 4 * scipy.signal.lfilter(b, a, wav)
    syllables = 1.1 + np.sin(2 * np.pi * rng.uniform(2, 4) * np.arange(len(wav)) / RATE)
    return torch.from_numpy(0.01 * wav * syllables).float()[None]


class Voices:
    sample_rate = RATE

    def __getitem__(self, n: int) -> dict:
        return {"wav": utterance(n % VOICES, n), "speaker": f"v{n % VOICES}", "phones": []}

    def crops(self, samples: int, seed: int) -> "Voices":
        return self

    def clips(self, split: str) -> list[dict]:
        """Voices between those of the training."""
        return [{"wav": utterance(v + 0.5, n), "speaker": f"held{v}"} for v in (0, 3, 6, 9) for n in range(3)]


@pytest.fixture(scope="module")
def probe() -> SpeakerProbe:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speaker, "CROPS", 120)
        return SpeakerProbe([Voices()], dim=6)


def test_unseen_voices_are_told_apart_and_directions_are_cached(probe, monkeypatch):
    assert probe.equal_error_rate < 0.1
    recording, other = utterance(2.5, 0)[0].numpy(), utterance(7.5, 0)[0].numpy()
    inside = slice(int(SPAN[0] * RATE), int(SPAN[1] * RATE))
    changed = recording.copy()
    changed[inside] = other[inside]
    own, foreign = (probe.similarity(wav, recording, RATE, SPAN) for wav in (recording, changed))
    assert own > 0.9
    assert foreign < own - 0.1
    assert probe.similarity(0.1 * recording, recording, RATE, SPAN) == pytest.approx(own, abs=0.01)  # level
    monkeypatch.setattr(SpeakerProbe, "_train", lambda *_: pytest.fail("trained again"))
    again = SpeakerProbe([Voices()], dim=6)
    assert (again.identity, again.equal_error_rate) == (probe.identity, probe.equal_error_rate)
    np.testing.assert_array_equal(again.directions, probe.directions)


def test_only_the_span_of_one_and_the_rest_of_the_other_count(probe):
    recording = utterance(2.5, 0)[0].numpy()
    a, b = int(0.45 * RATE), int(1.25 * RATE)  # a window's width to either side
    value = probe.similarity(recording, recording, RATE, SPAN)
    outside, inside = recording.copy(), recording.copy()
    outside[:a], outside[b:] = utterance(9.5, 1)[0, :a], utterance(9.5, 1)[0, b:]
    assert probe.similarity(outside, recording, RATE, SPAN) == pytest.approx(value, abs=0.05)
    inside[a + RATE // 10 : b - RATE // 10] = 0
    assert probe.similarity(recording, inside, RATE, SPAN) == pytest.approx(value, abs=0.05)


def test_equal_error_rates_by_hand():
    assert equal_error_rate(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 0
    assert equal_error_rate(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1
    assert equal_error_rate(np.array([0.9, 0.6, 0.3, 0.8]), np.array([0.1, 0.2, 0.7, 0.4])) == 0.25


def test_audio_and_corpora_without_voices_are_refused(probe, speech_folder):
    recording = utterance(2.5, 0)[0].numpy()
    with pytest.raises(MetricError, match=r"0\.1 s of speech"):
        probe.similarity(np.where(np.arange(len(recording)) < 1.5 * RATE, 0, recording), recording, RATE, SPAN)
    with pytest.raises(MetricError, match=r"0\.0 s"):
        pooled(np.zeros((64, 0)))
    with pytest.raises(InputError, match="more than 20 voices"):
        discriminants(np.zeros((4, 2)), "abcd", 20)
    (speech_folder / "nameless.csv").write_text("file\n" + "\n".join(f"{n:02d}.flac" for n in range(12)) + "\n")
    with pytest.raises(InputError, match="column `speaker`"):
        SpeakerProbe([FolderCorpus(speech_folder, RATE, manifest=speech_folder / "nameless.csv", holdout=0.25)])
