"""The judges together: what they say of one recording whose span was filled in and decoded."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from codec.data.espeak import EspeakCorpus
from codec.evaluation.judges.mel import SAMPLE_RATE
from codec.evaluation.judges.recogniser import Recogniser
from codec.evaluation.judges.speaker import SpeakerProbe
from codec.evaluation.metrics.base import Metric, MetricError
from codec.evaluation.metrics.pitch import f0_error, voicing_error
from codec.evaluation.metrics.spectral import mel_cepstral_distortion
from codec.evaluation.metrics.table import SPANS
from codec.utils.errors import InputError

VOICES, UTTERANCES, HOLDOUT = 198, 8, 0.06  # of the corpus that judges learn from: many voices, a few sentences each
SEED = 1000  # of that corpus: one that no codec is trained on, so that its voices and sentences are others


@dataclass(frozen=True)
class Recording:
    """A recording and the span of it that systems fill in.

    wav: ``[T]`` in [-1, 1]; phones: (symbol, start in s); span: (start, end) in s; text: of all of it, "" if unknown.
    """

    clip: str
    speaker: str
    wav: np.ndarray
    phones: Sequence[tuple[str, float]]
    span: tuple[float, float]
    text: str = ""


@dataclass(frozen=True)
class Panel:
    """All judges."""

    recogniser: Recogniser
    speaker: SpeakerProbe

    @classmethod
    def apart_from(cls, speakers: Collection[str], folders: Sequence[Any] = ()) -> Self:
        """Judges who know none of ``speakers``: those on whom systems are measured. Each is trained on first use.

        They learn from speech by eSpeak NG; the speaker probe from ``folders``, too: corpora at 16 kHz with speakers.
        The held-out voices by which they say how good they are have vocal tracts that they do not know either.

        Raises:
            CorpusError, InputError, ValueError: if a corpus cannot be had or does not fit, or the cache not be written.
        """
        corpus = EspeakCorpus(SAMPLE_RATE, VOICES, UTTERANCES, HOLDOUT, SEED)
        held = {corpus.recording(i).speaker for i in corpus.splits["val"].tolist()}
        apart = {*speakers, *held}
        return cls(Recogniser(corpus, apart), SpeakerProbe([corpus, *folders], apart))

    def in_words(self) -> str:
        """Who they are, and how good on their own held-out voices."""
        recogniser, speaker = self.recogniser, self.speaker
        return (
            f"Phones: {recogniser.identity}, {100 * recogniser.error_rate:.1f} % errors on its own held-out voices. "
            f"Speakers: {speaker.identity}, equal error rate {100 * speaker.equal_error_rate:.1f} %."
        )

    @property
    def metrics(self) -> dict[str, Metric]:
        """What is measured in the span, by column; each ``function`` takes (recording, decoded ``[T]``, rate in Hz)."""
        functions = {
            "span_per": self.phone_error_rate,
            "span_speaker": self.speaker_similarity,
            "span_mcd": _within(mel_cepstral_distortion),
            "span_f0_error": _within(f0_error),
            "span_voicing_error": _within(voicing_error),
        }
        return {name: replace(metric, function=functions[name]) for name, metric in SPANS.items()}

    def score(self, recording: Recording, decoded, sample_rate: int) -> tuple[dict[str, float], dict[str, str]]:
        """decoded ``[T]``, as long as the recording -> values by column, NaN where there is none, and why by column.

        Raises:
            InputError: if the lengths differ.
        """
        decoded = np.asarray(decoded)
        if decoded.shape != recording.wav.shape:
            shapes = f"{list(recording.wav.shape)} became {list(decoded.shape)}"
            raise InputError(f"{recording.clip}: a system must return the length it was given; {shapes}")
        values, reasons = {}, {}
        for name, metric in self.metrics.items():
            try:
                values[name] = metric.function(recording, decoded, sample_rate)
            except MetricError as error:
                values[name], reasons[name] = math.nan, str(error)
        return values, reasons

    def phone_error_rate(self, recording: Recording, decoded: np.ndarray, sample_rate: int) -> float:
        """Edits in the span per phone in it, in [0, inf), see
        :func:`codec.evaluation.judges.phone_edits.edits_within`; a mean over
        recordings weighs spans, not phones. Where no phone is heard it is 1."""
        edits = self.recogniser.edits(decoded, sample_rate, recording.phones, recording.span)
        if not edits.phones:
            raise MetricError("The phone error rate has no phone to count in the span.")
        return edits.edits / edits.phones

    def speaker_similarity(self, recording: Recording, decoded: np.ndarray, sample_rate: int) -> float:
        """See :meth:`codec.evaluation.judges.speaker.SpeakerProbe.similarity`."""
        return self.speaker.similarity(decoded, recording.wav, sample_rate, recording.span)

    def features(self, recording: Recording, decoded: np.ndarray, sample_rate: int) -> np.ndarray:
        """The recogniser's hidden layer in the span, ``[n, 64]``: for the Frechet distance."""
        return self.recogniser.features(decoded, sample_rate, recording.span)


def _within(metric: Callable[[np.ndarray, np.ndarray, int], float]) -> Callable[[Recording, np.ndarray, int], float]:
    """A metric of codec/metrics on the samples of the span alone: nothing outside of it is heard, and "the loudest
    frame" in its definition is that of the span."""

    def scored(recording: Recording, decoded: np.ndarray, sample_rate: int) -> float:
        start, end = (round(time * sample_rate) for time in recording.span)
        return metric(recording.wav[start:end], decoded[start:end], sample_rate)

    return scored
