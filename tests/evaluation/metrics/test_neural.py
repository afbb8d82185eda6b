"""Metrics with packages or weights of their own: how the package is called, and one sentence where it is missing."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from codec.evaluation.metrics import neural
from codec.evaluation.metrics.base import MetricError, MissingError
from codec.evaluation.metrics.table import METRICS, OPTIONAL, choose
from codec.evaluation.metrics.workers import score_clips
from tests.helpers.signals import RATE, noisy, speech

DNSMOS = "torchmetrics.functional.audio.dnsmos"
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIZES |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "conv_dim": (8,) * 7}


@pytest.fixture(autouse=True)
def _nothing_loaded():
    """A loaded fake package serves no other test."""
    yield
    for loader in (neural._visqol, neural._dnsmos, neural._recogniser, neural._embedding):
        loader.cache_clear()


def install(monkeypatch, name: str, **content):
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_package_or_missing_weights_are_one_sentence(name, monkeypatch):
    def fails(path):
        raise OSError(f"We couldn't connect to 'https://huggingface.co' to load {path}.\nCheck your connection.")

    for package in ("visqol", DNSMOS):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    names = ("AutoProcessor", "AutoModelForCTC", "AutoFeatureExtractor", "AutoModelForAudioXVector")
    install(monkeypatch, "transformers", **dict.fromkeys(names, SimpleNamespace(from_pretrained=fails)))
    with pytest.raises(MissingError, match=r"^[^\n]*(pip install|Hugging Face Hub)[^\n]*$"):
        choose(["stoi", name])


def test_visqol_gets_speech_at_16_khz_and_the_lattice_network(monkeypatch):
    calls = []

    class VisqolApi:
        def create(self, **options):
            calls.append(options)

        def measure_from_arrays(self, reference, estimate, rate):
            calls.append((len(reference), len(estimate), rate))
            return SimpleNamespace(moslqo=3.5)

    install(monkeypatch, "visqol", VisqolApi=VisqolApi)
    wav, metric = speech(rate=24_000), choose(["visqol"])["visqol"]
    assert [metric.function(wav, wav, 24_000) for _ in range(2)] == [3.5, 3.5]
    created, measured = {"mode": "speech", "use_lattice_model": True}, (3 * RATE, 3 * RATE, RATE)
    assert calls == [created, created, measured, measured]  # once for the check, once for the clips


def test_dnsmos_is_the_overall_score_of_the_estimate(monkeypatch):
    def score(wav, rate, personalized, num_threads):
        assert (rate, personalized, num_threads) == (RATE, False, 1)
        return torch.tensor([1.0, 2.0, 3.0, 4.0 if float(wav.abs().max()) > 0.3 else 1.5])

    install(monkeypatch, DNSMOS, deep_noise_suppression_mean_opinion_score=score)
    wav, metric = speech(), choose(["dnsmos"])["dnsmos"]
    assert (metric.function(wav / 8, wav, RATE), metric.function(wav, wav / 8, RATE)) == (4, 1.5)


def test_word_error_rate_counts_edits_per_word_of_the_reference(monkeypatch):
    texts = {1: "the cat sat on the mat", 2: "a cat sat on mat today", 3: ""}
    monkeypatch.setattr(neural, "_recogniser", lambda: lambda wav: texts[round(float(np.abs(wav).max()) * 10)])
    loud = [speech() * k / 5 for k in (1, 2, 3)]  # peaks 0.1, 0.2, 0.3
    assert neural.word_error_rate(loud[0], loud[0], RATE) == 0
    assert neural.word_error_rate(loud[0], loud[1], RATE) == pytest.approx(3 / 6)  # a for the, no the, today
    assert neural.word_error_rate(loud[0], loud[2], RATE) == 1
    with pytest.raises(MetricError, match="no words"):
        neural.word_error_rate(loud[2], loud[0], RATE)


def test_networks_of_their_kind_run(monkeypatch):
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    class Processor(Wav2Vec2FeatureExtractor):
        def batch_decode(self, ids):
            return [" ".join(map(str, row.tolist())) for row in ids]

    torch.manual_seed(0)
    tdnn = {"tdnn_dim": (8, 8), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 8}
    parts = {
        "AutoFeatureExtractor": Wav2Vec2FeatureExtractor(),
        "AutoModelForAudioXVector": WavLMForXVector(WavLMConfig(**SIZES, **tdnn)),
        "AutoProcessor": Processor(),
        "AutoModelForCTC": HubertForCTC(HubertConfig(**SIZES, vocab_size=4)),
    }
    loaders = {key: SimpleNamespace(from_pretrained=lambda name, part=part: part) for key, part in parts.items()}
    install(monkeypatch, "transformers", **loaders)
    wav, similarity, wer = speech(), *(metric.function for metric in choose(["speaker_similarity", "wer"]).values())
    assert wer(wav, wav, RATE) == 0
    assert similarity(wav, wav, RATE) == pytest.approx(1)
    assert -1 <= similarity(wav, noisy(wav, 0), RATE) < 1
    with pytest.raises(MetricError, match=r"needs 0\.5 s"):
        similarity(wav[: RATE // 4], wav[: RATE // 4], RATE)


def test_a_metric_that_fails_later_is_a_listed_nan(monkeypatch):
    monkeypatch.setitem(sys.modules, "visqol", None)
    metrics = {"visqol": OPTIONAL["visqol"], "si_sdr": METRICS["si_sdr"]}
    table, failures = score_clips([("a", speech(1.0), speech(1.0))], RATE, metrics, workers=0)
    assert table.isna().sum().sum() == 1
    assert [(one["clip"], one["metric"]) for one in failures] == [("a", "visqol")]
