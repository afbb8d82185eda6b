"""Metrics with packages or weights of their own: what is asked of the package, and one sentence where it is missing."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch

from codec.evaluation.metrics import neural as optional
from codec.evaluation.metrics.base import MetricError, MissingError
from codec.evaluation.metrics.table import METRICS, OPTIONAL, choose
from codec.evaluation.metrics.workers import score_clips
from tests.helpers.signals import RATE, noisy, speech

LOADERS = [getattr(optional, name) for name in ("_visqol", "_dnsmos", "_recogniser", "_embedding")]


@pytest.fixture(autouse=True)
def _nothing_loaded():
    """What a test loaded from a fake package must not serve another."""
    yield
    for loader in LOADERS:
        loader.cache_clear()


def install(monkeypatch, name: str, **content):
    module = types.ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


def test_none_is_a_default():
    assert not set(choose()) & set(OPTIONAL)


@pytest.mark.parametrize(
    ("name", "package"), [("visqol", "visqol"), ("dnsmos", "torchmetrics.functional.audio.dnsmos")]
)
def test_a_missing_package_is_one_sentence(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(MissingError, match=r"cannot run here .*: pip install ") as caught:
        choose(["stoi", name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "weights"), [("wer", "facebook/hubert-large-ls960-ft"), ("speaker_similarity", "wavlm-base-plus-sv")]
)
def test_missing_weights_are_one_sentence(name, weights, monkeypatch):
    def fails(path):
        raise OSError(f"We couldn't connect to 'https://huggingface.co' to load {path}.\nCheck your connection.")

    auto = types.SimpleNamespace(from_pretrained=fails)
    names = ("AutoProcessor", "AutoModelForCTC", "AutoFeatureExtractor", "AutoModelForAudioXVector")
    install(monkeypatch, "transformers", **dict.fromkeys(names, auto))
    with pytest.raises(MissingError, match=f"{weights}.* come from the Hugging Face Hub, once") as caught:
        choose([name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", OPTIONAL)
def test_they_travel_to_a_process(name):
    there = pickle.loads(pickle.dumps(OPTIONAL[name]))
    assert there.function is OPTIONAL[name].function
    assert there.check.args == OPTIONAL[name].check.args


def test_visqol_is_asked_for_speech_at_16_khz_with_the_lattice(monkeypatch):
    calls = []

    class VisqolApi:
        def create(self, **options):
            calls.append(options)

        def measure_from_arrays(self, reference, estimate, rate):
            calls.append((len(reference), len(estimate), rate))
            return types.SimpleNamespace(moslqo=3.5)

    install(monkeypatch, "visqol", VisqolApi=VisqolApi)
    wav = speech(rate=24_000)
    metric = choose(["visqol"])["visqol"]
    assert [metric.function(wav, wav, 24_000) for _ in range(2)] == [3.5, 3.5]
    created = {"mode": "speech", "use_lattice_model": True}
    measured = (3 * RATE, 3 * RATE, RATE)
    assert calls == [created, created, measured, measured]  # once for the check, once for the clips


def test_dnsmos_is_the_overall_score_of_the_estimate(monkeypatch):
    def score(wav, rate, personalized, num_threads):
        assert (rate, personalized, num_threads) == (RATE, False, 1)
        return torch.tensor([1.0, 2.0, 3.0, 4.0 if float(wav.abs().max()) > 0.3 else 1.5])

    name = "torchmetrics.functional.audio.dnsmos"
    install(monkeypatch, name, deep_noise_suppression_mean_opinion_score=score)
    wav = speech()
    metric = choose(["dnsmos"])["dnsmos"]
    assert metric.function(wav / 8, wav, RATE) == 4
    assert metric.function(wav, wav / 8, RATE) == 1.5


def test_word_error_rate_counts_edits_per_word_of_the_reference(monkeypatch):
    texts = {1: "the cat sat on the mat", 2: "a cat sat on mat today", 3: ""}

    def recognise(wav):
        return texts[round(float(np.abs(wav).max()) * 10)]

    monkeypatch.setattr(optional, "_recogniser", lambda: recognise)
    wav = speech() / 5  # peak 0.1
    loud = [wav * k / np.abs(wav).max() / 10 for k in (1, 2, 3)]
    assert optional.word_error_rate(loud[0], loud[0], RATE) == 0
    assert optional.word_error_rate(loud[0], loud[1], RATE) == pytest.approx(3 / 6)  # a for the, no the, today
    assert optional.word_error_rate(loud[0], loud[2], RATE) == 1
    with pytest.raises(MetricError, match="hears none in the reference"):
        optional.word_error_rate(loud[2], loud[0], RATE)


@pytest.mark.parametrize(
    ("source", "target", "count"),
    [("", "", 0), ("a b c", "a b c", 0), ("", "a b", 2), ("a b", "", 2), ("a b c d", "b c e d", 2), ("a b", "b a", 2)],
)
def test_edits(source, target, count):
    assert optional.edits(source.split(), target.split()) == count


def small_wavlm():
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    tdnn = {"tdnn_dim": (8, 8), "tdnn_kernel": (3, 1), "tdnn_dilation": (1, 1), "xvector_output_dim": 8}
    positions = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    convolutions = {"conv_dim": (8,) * 7}
    config = WavLMConfig(**sizes, **tdnn, **positions, **convolutions)
    return Wav2Vec2FeatureExtractor(), WavLMForXVector(config)


def test_speaker_similarity_runs_a_network_of_this_kind(monkeypatch):
    extractor, model = small_wavlm()
    install(
        monkeypatch,
        "transformers",
        AutoFeatureExtractor=types.SimpleNamespace(from_pretrained=lambda name: extractor),
        AutoModelForAudioXVector=types.SimpleNamespace(from_pretrained=lambda name: model),
    )
    wav = speech()
    metric = choose(["speaker_similarity"])["speaker_similarity"]
    assert metric.function(wav, wav, RATE) == pytest.approx(1)
    other = metric.function(wav, noisy(wav, 0), RATE)
    assert -1 <= other < 1
    with pytest.raises(MetricError, match=r"needs 0\.5 s"):
        metric.function(wav[: RATE // 4], wav[: RATE // 4], RATE)


def test_the_recogniser_runs_a_network_of_this_kind(monkeypatch):
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = HubertConfig(
        **sizes, conv_dim=(8,) * 7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, vocab_size=4
    )
    model = HubertForCTC(config)

    class Processor:
        def __call__(self, wav, **options):
            return Wav2Vec2FeatureExtractor()(wav, **options)

        def batch_decode(self, ids):
            assert ids.ndim == 2
            return [" ".join(map(str, row.tolist())) for row in ids]

    install(
        monkeypatch,
        "transformers",
        AutoProcessor=types.SimpleNamespace(from_pretrained=lambda name: Processor()),
        AutoModelForCTC=types.SimpleNamespace(from_pretrained=lambda name: model),
    )
    wav = speech()
    metric = choose(["wer"])["wer"]
    assert metric.function(wav, wav, RATE) == 0


def test_a_metric_that_fails_later_is_a_listed_nan(monkeypatch):
    def no_package():
        raise ImportError("No module named 'visqol'")

    monkeypatch.setattr(optional, "_visqol", no_package)
    wav = speech(1.0)
    metrics = {"visqol": OPTIONAL["visqol"], "stoi": METRICS["stoi"]}
    table, failures = score_clips([("a", wav, wav)], RATE, metrics, workers=0)
    assert np.isnan(table.loc[0, "visqol"])
    assert table.loc[0, "stoi"] == pytest.approx(1)
    assert failures == [{"clip": "a", "metric": "visqol", "reason": "ImportError: No module named 'visqol'"}]
