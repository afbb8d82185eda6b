"""Metrics by neural networks whose packages or weights are not in requirements.txt: computed only if named.

A loader per metric runs once per process; its check runs it before any clip and reports what is missing. Weights for
`transformers` come from the Hugging Face Hub or, offline, its cache. A network takes a whole clip at once, on the CPU:
for clips of at most about a minute.
"""

import functools
from collections.abc import Callable

import jiwer
import numpy as np

from codec.evaluation.metrics.base import MetricError, MissingError, finite, resampled_pair

RATE = 16_000  # Hz; of all models here
SHORTEST = 0.5  # seconds
SPEAKER_MODEL = "microsoft/wavlm-base-plus-sv"
RECOGNISER = "facebook/hubert-large-ls960-ft"


def visqol(reference, estimate, sample_rate: int) -> float:
    """ViSQOL v3 (Chinen et al., QoMEX 2020, arXiv 2004.09584), MOS-LQO in [1, 5], higher is better, at 16 kHz.

    Speech mode, with the lattice network of the C++ original: compares patches of a gammatone spectrogram after
    aligning them in time. A perfect copy scores about 4.6. Needs `visqol-python[lattice]`.
    """
    r, e = resampled_pair("ViSQOL", reference, estimate, sample_rate, RATE, SHORTEST)
    return finite("ViSQOL", _visqol().measure_from_arrays(r, e, RATE).moslqo)


def dnsmos(reference, estimate, sample_rate: int) -> float:
    """DNSMOS P.835, overall quality (Reddy et al., ICASSP 2022, arXiv 2110.01763), MOS in [1, 5], higher is better.

    At 16 kHz, in torchmetrics; clips under 9 s are repeated to that length. No reference: another voice or other words
    cost nothing. Needs librosa, onnxruntime, requests and, once, GitHub for the weights.
    """
    _, e = resampled_pair("DNSMOS", reference, estimate, sample_rate, RATE, SHORTEST)
    return finite("DNSMOS", _dnsmos()(e))


def word_error_rate(reference, estimate, sample_rate: int) -> float:
    """Differential word error rate of a recogniser, in [0, inf), lower is better, at 16 kHz.

    Edits from the transcript of the reference to that of the estimate, per word of the former, by HuBERT-large with
    greedy CTC, trained on LibriSpeech (Hsu et al., IEEE/ACM TASLP 2021, arXiv 2106.07447): English only. Both
    transcripts contain the recogniser's errors, so it is not the word error rate against the true text. A mean over
    clips weights clips, not words. No score if the transcript of the reference is empty.
    """
    r, e = resampled_pair("The word error rate", reference, estimate, sample_rate, RATE, SHORTEST)
    expected, found = _recogniser()(r), _recogniser()(e)
    if not expected.split():
        raise MetricError("The word error rate has no words to count: the transcript of the reference is empty.")
    return float(jiwer.wer(expected, found))


def speaker_similarity(reference, estimate, sample_rate: int) -> float:
    """Cosine of speaker embeddings by WavLM-base-plus, in [-1, 1], higher is better, at 16 kHz.

    Trained for verification (Chen et al., IEEE JSTSP 2022, arXiv 2110.13900). The example of the model's card takes
    0.86 or more for one speaker: copies of one voice differ by hundredths.
    """
    name = "The speaker similarity"
    r, e = map(_embedding(), resampled_pair(name, reference, estimate, sample_rate, RATE, SHORTEST))
    return finite(name, r @ e / np.sqrt((r @ r) * (e @ e)))


def check(name: str, load: Callable[[], object], remedy: str) -> None:
    """Raise `MissingError` with one sentence if the cached `load` fails, for whatever reason; cache nothing."""
    try:
        load()
        load.cache_clear()  # each worker process loads its own
    except Exception as error:  # foreign code and networks fail in many ways
        first = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
        raise MissingError(f"{name} cannot run here ({first}): {remedy}") from error


@functools.cache
def _visqol():
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="speech", use_lattice_model=True)  # the other mapping is 1 or 2 MOS too high on bad speech
    return api


@functools.cache
def _dnsmos() -> Callable[[np.ndarray], float]:
    import torch
    from torchmetrics.functional.audio.dnsmos import deep_noise_suppression_mean_opinion_score as score

    def overall(wav: np.ndarray) -> float:
        mos = score(torch.from_numpy(wav).float(), RATE, personalized=False, num_threads=1)
        return float(mos[3])  # P.808, signal, background, overall

    overall(np.random.default_rng(0).normal(scale=0.01, size=10 * RATE))  # the weights are fetched on first use
    return overall


@functools.cache
def _recogniser() -> Callable[[np.ndarray], str]:
    import torch
    from transformers import AutoModelForCTC, AutoProcessor

    processor = AutoProcessor.from_pretrained(RECOGNISER)
    model = AutoModelForCTC.from_pretrained(RECOGNISER).eval()

    @torch.inference_mode()
    def recognise(wav: np.ndarray) -> str:
        inputs = processor(wav, sampling_rate=RATE, return_tensors="pt")
        return processor.batch_decode(model(**inputs).logits.argmax(dim=-1))[0]

    return recognise


@functools.cache
def _embedding() -> Callable[[np.ndarray], np.ndarray]:
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    extractor = AutoFeatureExtractor.from_pretrained(SPEAKER_MODEL)
    model = AutoModelForAudioXVector.from_pretrained(SPEAKER_MODEL).eval()

    @torch.inference_mode()
    def embed(wav: np.ndarray) -> np.ndarray:
        inputs = extractor(wav, sampling_rate=RATE, return_tensors="pt")
        return model(**inputs).embeddings[0].double().numpy()

    return embed


HUB = "the weights {} come from the Hugging Face Hub, once"
PACKAGES = "pip install librosa onnxruntime requests; its weights come from GitHub, once"
check_visqol = functools.partial(check, "ViSQOL", _visqol, 'pip install "visqol-python[lattice]"')
check_dnsmos = functools.partial(check, "DNSMOS", _dnsmos, PACKAGES)
check_recogniser = functools.partial(check, "The word error rate", _recogniser, HUB.format(RECOGNISER))
check_speaker = functools.partial(check, "The speaker similarity", _embedding, HUB.format(SPEAKER_MODEL))
