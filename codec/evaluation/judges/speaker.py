"""Speaker similarity between a stretch of speech and the rest of its recording, without a neural network.

A voice is the mean log-mel spectrum and the standard deviations of mel cepstra over speech frames (statistics pooling),
projected by Fisher's linear discriminant analysis: a closed form, computed in seconds.
"""

import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
import torch
from torch import Tensor

from codec.evaluation.judges import mel
from codec.evaluation.judges.crops import crops_without
from codec.evaluation.judges.mel import FLOOR, MEL_RATE, SAMPLE_RATE, LogMel, at_16k, frames_within
from codec.evaluation.metrics.base import MetricError
from codec.utils.cache import Stored, cache_dir, cache_key, cached_tensors, corpus_fingerprint
from codec.utils.errors import InputError

log = logging.getLogger(__name__)

VERSION = 1  # raise it when anything here changes the directions
CROP = 2 * SAMPLE_RATE  # samples
CROPS = 4000  # training stretches from each corpus
SHORTEST, LONGEST = 0.4, 2.0  # seconds of a stretch
SPEECH = 6.9  # of log energy under the loudest frame at most: 30 dB
CEPSTRA = 30
RIDGE = 1e-2  # of the variance within voices, which is 1 or less in each direction
FRAMES = 10  # with speech, at least


class SpeakerProbe:
    """Speaker embeddings of stretches of audio by linear discriminants, computed on first use and cached.

    Args:
        corpora: map-style at 16 kHz with speakers: the espeak corpus and folders with that column in their manifests.
        exclude: speakers to be judged; neither they nor their vocal tracts are trained on.
        dim: of the embeddings.

    ``equal_error_rate`` is that of voices held out from all corpora, stretches of 0.4 to 1.5 s against other
    recordings, of the same voice or another; ``identity`` names the projection. Raises InputError if a corpus does not
    fit, ValueError if the cache cannot be written.
    """

    def __init__(self, corpora: Sequence[Any], exclude: Collection[str] = (), dim: int = 20, seed: int = 1000):
        prints = [corpus_fingerprint(list(crops_without(exclude, corpus, CROP, 8, seed))) for corpus in corpora]
        self.identity = f"speaker-{cache_key(VERSION, mel.VERSION, prints, sorted(exclude), dim, seed)}"
        path = cache_dir() / "judges" / f"{self.identity}.safetensors"
        self.mel = LogMel()
        tensors, about = cached_tensors(path, lambda: self._train(corpora, exclude, dim, seed))
        self.mean, self.directions = tensors["mean"].numpy(), tensors["directions"].numpy()
        self.equal_error_rate = float(about["equal_error_rate"])
        log.info("speaker probe: equal error rate of %.1f %% on held-out voices", 100 * self.equal_error_rate)

    def similarity(self, decoded, recording, sample_rate: int, span: tuple[float, float]) -> float:
        """Cosine, in [-1, 1], of the voice in ``span`` (s) of ``decoded`` and that in the rest of ``recording``.

        About 0 for different voices. The rest is of the original recording for all systems, so that a codec's loss of
        the voice counts; copy synthesis shows how much that is. Raises MetricError if either has next to no speech.
        """
        return float(self.embed(decoded, sample_rate, span) @ self.embed(recording, sample_rate, span, rest=True))

    def embed(self, wav, sample_rate: int, span: tuple[float, float], rest: bool = False) -> np.ndarray:
        """Unit vector ``[dim]`` of the frames of wav ``[T]`` in ``span`` (s), or of all others (``rest``)."""
        spectrum = self._log_mel(at_16k(wav, sample_rate))
        x = (
            pooled(spectrum[:, frames_within(span, spectrum.shape[1], MEL_RATE) != rest]) - self.mean
        ) @ self.directions
        return x / np.linalg.norm(x)

    @torch.no_grad()
    def _log_mel(self, wav: Tensor) -> np.ndarray:
        return self.mel(wav)[0].numpy()

    def _train(self, corpora: Sequence[Any], exclude: Collection[str], dim: int, seed: int) -> Stored:
        rng = np.random.default_rng(seed)
        stretches, voices = [], []
        for number, corpus in enumerate(corpora):
            for item in crops_without(exclude, corpus, CROP, CROPS, seed):
                if not item["speaker"]:
                    raise InputError("the speaker probe needs speakers: give the manifest a column `speaker`")
                spectrum = self._log_mel(item["wav"])
                frames = int(rng.uniform(SHORTEST, LONGEST) * MEL_RATE)
                first = int(rng.integers(0, max(1, spectrum.shape[1] - frames + 1)))
                try:
                    stretches.append(pooled(spectrum[:, first : first + frames]))
                except MetricError:  # a pause
                    continue
                voices.append((number, item["speaker"]))
        self.mean, self.directions = discriminants(np.stack(stretches), voices, dim)
        rate = self._equal_error_rate([clip for corpus in corpora for clip in corpus.clips("val")], rng)
        log.info("speaker probe: trained on %d stretches of %d voices", len(voices), len(set(voices)))
        tensors = {"mean": torch.from_numpy(self.mean), "directions": torch.from_numpy(self.directions)}
        return tensors, {"equal_error_rate": str(rate)}

    def _equal_error_rate(self, clips: Sequence[dict], rng: np.random.Generator) -> float:
        pairs, voices = [], []
        for item in clips:
            wav, seconds = item["wav"][0], item["wav"].shape[-1] / SAMPLE_RATE
            length = rng.uniform(SHORTEST, min(1.5, seconds / 2))
            start = rng.uniform(0, seconds - length)
            span = start, start + length
            try:
                pairs.append([self.embed(wav, SAMPLE_RATE, span, rest) for rest in (False, True)])
            except MetricError:
                continue
            voices.append(item["speaker"])
        if len(set(voices)) < 2 or len(voices) == len(set(voices)):
            raise InputError("the speaker probe needs held-out voices, two or more, with several recordings each")
        inside, outside = np.stack(pairs, axis=1)
        cosines, names = inside @ outside.T, np.array(voices)
        same, own = names[:, None] == names, np.eye(len(names), dtype=bool)
        return equal_error_rate(cosines[same & ~own], cosines[~same])


def pooled(spectrum: np.ndarray) -> np.ndarray:
    """Statistics ``[64 + 30]`` of the speech frames in log-mel energies ``[64, F]``.

    The mean spectrum without its level, and the standard deviations of cepstra 1 to 30. Raises MetricError if fewer
    than 10 frames (0.1 s) are within 30 dB of the loudest, or all are silent.
    """
    loudness = spectrum.max(axis=0, initial=-np.inf)
    speech = (loudness > np.log(FLOOR)) & (loudness > loudness.max(initial=-np.inf) - SPEECH)
    if speech.sum() < FRAMES:
        raise MetricError(f"The speaker probe needs 0.1 s of speech; here are {speech.sum() / MEL_RATE} s.")
    spectrum = spectrum[:, speech].astype(np.float64)
    mean = spectrum.mean(axis=1)
    cepstra = scipy.fft.dct(spectrum, axis=0, norm="ortho")[1 : CEPSTRA + 1]
    return np.concatenate([mean - mean.mean(), cepstra.std(axis=1)])


def discriminants(stretches: np.ndarray, voices: Sequence[Any], dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminants (Fisher 1936, Rao 1948) of stretches ``[n, d]``: mean ``[d]`` and directions ``[d, dim]``.

    Along them the stretches of one voice have variance 1, and voices differ most. Raises InputError if there are not
    more than ``dim`` voices.
    """
    index = {voice: i for i, voice in enumerate(dict.fromkeys(voices))}
    if len(index) <= dim:
        raise InputError(f"the speaker probe needs more than {dim} voices to learn from, not {len(index)}")
    voice = np.array([index[v] for v in voices])
    mean, scale = stretches.mean(axis=0), stretches.std(axis=0) + 1e-6
    x = (stretches - mean) / scale
    centres = np.stack([x[voice == i].mean(axis=0) for i in range(len(index))])
    within = np.cov((x - centres[voice]).T) + RIDGE * np.eye(x.shape[1])
    _, vectors = scipy.linalg.eigh(np.cov(centres.T), within)  # in ascending order
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :dim] / scale[:, None])


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> float:
    """Equal error rate, in [0, 1], of same-voice and other-voice scores: mean of both rates where they are nearest."""
    thresholds = np.unique(np.concatenate([same, different, [np.inf]]))
    rejected = np.searchsorted(np.sort(same), thresholds, side="left") / len(same)
    accepted = 1 - np.searchsorted(np.sort(different), thresholds, side="left") / len(different)
    nearest = int(np.argmin(np.abs(rejected - accepted)))
    return float((rejected[nearest] + accepted[nearest]) / 2)
