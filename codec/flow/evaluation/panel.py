"""Panel of judges: scores of a recording with an inpainted span, as decoded."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from codec.data.espeak import EspeakCorpus
from codec.evaluation.judges.mel import SAMPLE_RATE
from codec.evaluation.judges.recogniser import Recogniser
from codec.evaluation.judges.speaker import SpeakerProbe
from codec.evaluation.metrics.base import MetricError
from codec.evaluation.metrics.pitch import f0_rmse, gross_pitch_error, voicing_error
from codec.evaluation.metrics.spectral import mel_cepstral_distortion
from codec.flow.evaluation.spans import Recording
from codec.utils.errors import InputError

VOICES, UTTERANCES, HOLDOUT = 198, 8, 0.06  # of the corpus of the judges: many voices, a few sentences each
SEED = 1000  # of that corpus: no codec is trained on it, so that its voices and sentences are others


@dataclass(frozen=True)
class Panel:
    """All judges; names and units of their scores: :data:`codec.evaluation.metrics.table.SPANS`."""

    recogniser: Recogniser
    speaker: SpeakerProbe

    @classmethod
    def trained_without(cls, speakers: Collection[str], folders: Sequence[Any] = ()) -> Self:
        """Judges trained, on first use, without ``speakers``: those on whom systems are measured.

        They learn from eSpeak NG, the speaker probe also from ``folders``, corpora at 16 kHz with speakers; the vocal
        tracts of the held-out voices that measure their errors are excluded, too. Raises CorpusError, InputError or
        ValueError if a corpus is missing or does not fit, or the cache cannot be written.
        """
        corpus = EspeakCorpus(SAMPLE_RATE, VOICES, UTTERANCES, HOLDOUT, SEED)
        held_out = {corpus.recording(i).speaker for i in corpus.splits["val"].tolist()}
        exclude = {*speakers, *held_out}
        return cls(Recogniser(corpus, exclude), SpeakerProbe([corpus, *folders], exclude))

    def summary(self) -> str:
        """Identities of the judges and their errors on held-out voices."""
        recogniser, speaker = self.recogniser, self.speaker
        return (
            f"Phones: {recogniser.identity}, {100 * recogniser.error_rate:.1f} % errors on its own held-out voices. "
            f"Speakers: {speaker.identity}, equal error rate {100 * speaker.equal_error_rate:.1f} %."
        )

    def score(self, recording: Recording, decoded, sample_rate: int) -> tuple[dict[str, float], dict[str, str]]:
        """Scores by metric, NaN if there is none, and reasons of NaN, of ``decoded`` ``[T]``, as long as the recording.

        The phone error rate is edits per phone in the span, in [0, inf), 1 if no phone is recognised; a mean over
        recordings weights spans, not phones. MCD, F0 and voicing use the samples of the span alone, also for "the
        loudest frame" in their definitions. Raises InputError if the lengths differ.
        """
        decoded = np.asarray(decoded)
        if decoded.shape != recording.wav.shape:
            shapes = f"{list(recording.wav.shape)} became {list(decoded.shape)}"
            raise InputError(f"{recording.clip}: a system must keep the length of a recording; {shapes}")
        start, end = (round(time * sample_rate) for time in recording.span)
        inside = recording.wav[start:end], decoded[start:end], sample_rate
        scores = {
            "span_per": lambda: self._phone_error_rate(recording, decoded, sample_rate),
            "span_speaker": lambda: self.speaker.similarity(decoded, recording.wav, sample_rate, recording.span),
            "span_mcd": lambda: mel_cepstral_distortion(*inside),
            "span_f0_rmse": lambda: f0_rmse(*inside),
            "span_gross_pitch_error": lambda: gross_pitch_error(*inside),
            "span_voicing_error": lambda: voicing_error(*inside),
        }
        values, reasons = {}, {}
        for name, score in scores.items():
            try:
                values[name] = score()
            except MetricError as error:
                values[name], reasons[name] = math.nan, str(error)
        return values, reasons

    def _phone_error_rate(self, recording: Recording, decoded: np.ndarray, sample_rate: int) -> float:
        found = self.recogniser.edits(decoded, sample_rate, recording.phones, recording.span)
        if not found.phones:
            raise MetricError("The phone error rate has no phone to count in the span.")
        return found.edits / found.phones
