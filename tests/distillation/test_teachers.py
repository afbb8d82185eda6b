"""Teachers: the contract of all, and the properties of each."""

import logging
import urllib.error

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torchaudio.models.wav2vec2.utils import import_huggingface_model

from codec.data.espeak import EspeakCorpus
from codec.data.folder import FolderCorpus
from codec.distillation.teachers import phones, wavlm
from codec.distillation.teachers.base import Teacher
from codec.distillation.teachers.network import FrameNetwork
from codec.distillation.teachers.phones import PhoneTeacher
from codec.distillation.teachers.random import RandomTeacher
from codec.distillation.teachers.rate import to_frame_rate
from codec.distillation.teachers.shuffled import ShuffledTeacher
from codec.distillation.teachers.wavlm import WavLM
from codec.utils.fitting import shift_bands
from tests.helpers.signals import speechlike
from tests.helpers.tones import Tones
from tests.helpers.training import CONF

RATE = 16_000
pytestmark = pytest.mark.usefixtures("_tiny_wavlm")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six voices, one of them held out."""
    return EspeakCorpus(RATE, voices=6, utterances=2, cache=tmp_path_factory.mktemp("espeak"))


def tiny_phones(corpus, **changes) -> PhoneTeacher:
    return PhoneTeacher(corpus, **({"width": 32, "blocks": 2, "steps": 3} | changes))


def tiny_wavlm(kind: str = "large", **changes) -> WavLM:
    return WavLM(f"tiny-{kind}", **({"layer": 3, "pretrained": False} | changes))


IN_TIME = ["random", "phones", "wavlm-base", "wavlm-large"]


@pytest.fixture(params=[*IN_TIME, "shuffled"])
def teacher(request, corpus) -> Teacher:
    make = {
        "random": lambda: RandomTeacher(width=32, blocks=2),
        "phones": lambda: tiny_phones(corpus),
        "wavlm-base": lambda: tiny_wavlm("base"),
        "wavlm-large": tiny_wavlm,
        "shuffled": lambda: ShuffledTeacher(RandomTeacher(width=32, blocks=2), 50.0),
    }
    return make[request.param]()


def noise(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(seed))


# The contract


def test_features_have_the_stated_rate_and_width(teacher):
    for seconds, rate in ((1.0, 16_000), (1.0, 24_000), (0.52, 22_050)):
        features = teacher(noise(2, int(seconds * rate)), rate)
        batch, frames, dim = features.shape
        assert (batch, dim) == (2, teacher.dim)
        assert 0 <= seconds * teacher.frame_rate - frames <= 1
        assert features.dtype == torch.float32
        assert torch.isfinite(features).all()


def test_a_teacher_stays_frozen_in_eval_mode_and_in_fp32(teacher):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    wav = noise(1, RATE).bfloat16().float()
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    features = teacher(wav.clone().requires_grad_(), RATE)
    assert not features.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        inside = teacher(wav, RATE)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, features)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_features_do_not_depend_on_the_rest_of_the_batch(teacher):
    """torchaudio normalises the batch of the large model as a whole."""
    quiet, loud = noise(1, RATE), 5 * noise(1, RATE, 1) + 1
    batched = teacher(torch.cat([loud, quiet]), RATE)[1:]
    torch.testing.assert_close(teacher(quiet, RATE), batched, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("teacher", IN_TIME, indirect=True)
def test_features_change_where_the_audio_does(teacher):
    one, other = (torch.from_numpy(speechlike(2.0, RATE, seed))[None, None] for seed in (0, 1))
    mixed = torch.cat([one[..., : 3 * RATE // 2], other[..., 3 * RATE // 2 :]], dim=-1)
    difference = (teacher(mixed, RATE) - teacher(one, RATE)).abs().mean((0, 2))
    assert difference[80:].mean() > 1.5 * difference[:60].mean()


@pytest.mark.parametrize("build", [lambda seed: RandomTeacher(16, 2, seed), lambda seed: tiny_wavlm(seed=seed)])
def test_a_seed_determines_the_weights_and_changes_no_other_random_numbers(build):
    state = torch.get_rng_state()
    one, again, other = build(0), build(0), build(1)
    assert torch.equal(torch.get_rng_state(), state)
    wav = noise(1, RATE)
    assert torch.equal(one(wav, RATE), again(wav, RATE))
    assert one.identity == again.identity != other.identity
    assert not torch.allclose(one(wav, RATE), other(wav, RATE), atol=0.1)


# The frame network


def test_the_level_does_not_matter():
    frames = FrameNetwork(16, 2).eval()
    wav = noise(2, RATE)[:, 0]
    for gain in (0.01, 3.0, -1.0):
        torch.testing.assert_close(frames(gain * wav), frames(wav), atol=1e-3, rtol=1e-3)


def test_each_begun_hop_has_a_frame_centred_as_a_codecs():
    frames = FrameNetwork(16, 1)
    for samples in (1, 319, 320, 321, 16_000):
        for wav in (noise(1, samples)[:, 0], torch.zeros(1, samples)):
            features = frames(wav)
            assert features.shape == (1, -(-samples // 320), 16)
            assert torch.isfinite(features).all()
    wav = 1e-3 * noise(1, 40 * 320)[:, 0]
    wav[0, 20 * 320 + 160] = 1.0  # in the middle of frame 20
    energy = frames.log_mel(wav)[0].mean(0)
    assert energy.argmax() == 20
    assert abs(energy[19] - energy[21]) < 0.05 * (energy[20] - energy[0])


# WavLM


def test_mimis_target_is_transformers_last_hidden_state_pooled(monkeypatch):
    """kyutai-labs/moshi @ e803d4d: WavLMModel(raw wav)[0] and a constant convolution k8 s4 with replicate padding."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    large = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "layerdrop": 0.0}
    torch.manual_seed(0)
    theirs = transformers.WavLMModel(transformers.WavLMConfig(**sizes, **large)).eval()
    for p in theirs.encoder.layer_norm.parameters():
        torch.nn.init.normal_(p)
    monkeypatch.setattr(wavlm, "load_pretrained", lambda bundle: import_huggingface_model(theirs))
    options = OmegaConf.load(CONF / "teacher" / "wavlm.yaml")
    ours = WavLM("tiny-large", layer=options.layer, normalize=options.normalize)
    wav = 0.3 + 0.1 * noise(2, 3 * RATE)  # neither of mean 0 nor of variance 1
    with torch.no_grad():
        hidden = theirs(wav[:, 0]).last_hidden_state
        padded = F.pad(hidden.transpose(1, 2), (2, 2 + -hidden.shape[1] % 4), "replicate")
        kernel = torch.full((16, 1, 8), 1 / 8)
        target = F.conv1d(padded, kernel, stride=4, groups=16).transpose(1, 2)  # [2, 38, 16] at 12.5 Hz
    features = ours(wav, RATE)
    torch.testing.assert_close(features, hidden, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(to_frame_rate(features, 50.0, 12.5, 38, True), target, atol=1e-4, rtol=1e-4)
    for other in ({"layer": 3, "normalize": False}, {"layer": "final"}):
        changed = WavLM("tiny-large", **other)
        assert not torch.allclose(changed(wav, RATE), hidden, atol=1e-2)
        assert changed.identity != ours.identity


def test_the_output_of_base_is_its_last_layer():
    wav = noise(1, RATE)
    assert torch.equal(tiny_wavlm("base", layer="final")(wav, RATE), tiny_wavlm("base", layer="last")(wav, RATE))


@pytest.mark.parametrize("kind", ["base", "large"])
def test_the_layer_is_the_requested_one(kind, monkeypatch):
    wav, reference = noise(1, RATE), tiny_wavlm(kind)
    with torch.no_grad():
        one = wav[:, 0]
        layers = reference.network.extract_features(F.layer_norm(one, one.shape) if reference.normalize else one)[0]
    assert len(layers) == 4
    wanted = {1: layers[:1], 3: layers[2:3], "last": layers[3:], "mean": layers, (2, 3): layers[1:3]}
    for layer, outputs in wanted.items():
        found = tiny_wavlm(kind, layer=list(layer) if isinstance(layer, tuple) else layer)(wav, RATE)
        torch.testing.assert_close(found, sum(outputs) / len(outputs))
    assert not torch.allclose(layers[0], layers[2], atol=1e-2)
    second = tiny_wavlm(kind, layer=2)
    monkeypatch.setattr(second.network.encoder.transformer.layers[2], "forward", lambda *_, **__: 1 / 0)
    second(wav, RATE)  # layers above the requested one are not run


def test_equal_features_share_an_identity_and_others_do_not():
    names = [tiny_wavlm(layer=layer).identity for layer in (3, 4, "last", "mean", [1, 4], [2, 4])]
    assert names[1] == names[2]
    assert names[3] == names[4]
    assert len({*names, tiny_wavlm("base").identity}) == 5


def test_impossible_layers_and_bundles_are_refused():
    for layer in (0, 5, -1, "first", [3, 2], [0, 2], [1, 2, 3], 2.5):
        with pytest.raises(ValueError, match=r"choose one from 1 to 4, last, mean, or a range") as error:
            tiny_wavlm(layer=layer)
        assert "\n" not in str(error.value)
    for bundle, layer, valid in (
        ("base+", 23, "1 to 12"),
        ("large", 25, "1 to 24"),
        ("huge", 1, "base, base\\+, large"),
    ):
        with pytest.raises(ValueError, match=valid):
            WavLM(bundle, layer=layer, pretrained=False)


def test_without_network_and_weights_the_error_names_what_to_fetch(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    file = tmp_path / "checkpoints" / "tiny_large.pth"
    url = "https://download.pytorch.org/torchaudio/models/tiny_large.pth"
    for content, reason in ((None, "Name or service not known"), (b"half a file", "")):
        if content:
            file.write_bytes(content)
        with pytest.raises(ValueError, match="fetch") as error:
            tiny_wavlm(pretrained=True)
        assert all(part in str(error.value) for part in (url, str(file), reason))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["base", "large"])
def test_downloaded_weights_are_loaded_without_a_network(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    wanted = tiny_wavlm(kind, seed=7)
    (tmp_path / "checkpoints").mkdir()
    torch.save(wanted.network.state_dict(), tmp_path / "checkpoints" / f"tiny_{kind}.pth")
    state = torch.get_rng_state()
    loaded = tiny_wavlm(kind, pretrained=True)
    assert torch.equal(torch.get_rng_state(), state)
    wav = noise(2, RATE)
    torch.testing.assert_close(loaded(wav, RATE), wanted(wav, RATE))
    with torch.no_grad():  # alone in a batch, torchaudio's normalisation is that of the example
        reference = wavlm.BUNDLES[f"tiny-{kind}"].get_model().extract_features(wav[:1, 0])[0][2]
    torch.testing.assert_close(loaded(wav[:1], RATE), reference)


# Phones


def test_labels_are_the_phones_at_the_centres_of_the_frames():
    item = {"wav": torch.zeros(1, 5 * 320 + 1), "phones": [("a", 0.015), ("b", 0.05), ("c", 0.051), ("?", 0.1)]}
    assert phones.labels(item, {"a": 0, "b": 1, "c": 2}).tolist() == [-1, 0, 1, 2, 2, -1]
    assert phones.labels({"wav": torch.zeros(1, 640), "phones": []}, {"a": 0}).tolist() == [-1, -1]


def test_the_shift_moves_whole_examples_by_a_few_bands():
    torch.manual_seed(0)
    mel = torch.arange(80.0)[None, :, None].expand(64, 80, 3)
    moved = shift_bands(mel, phones.SHIFT)
    by = moved[:, 40, 0] - 40
    assert set(by.tolist()) == set(range(-4, 5))
    torch.testing.assert_close(moved, (mel + by[:, None, None]).clamp(0, 79))


def test_it_learns_to_classify_frames(monkeypatch):
    monkeypatch.setattr(phones, "CROPS", 120)
    teacher = tiny_phones(Tones(), steps=60)
    assert 0.2 < teacher.chance < 0.4
    assert teacher.accuracy > 0.9
    assert tiny_phones(Tones(), steps=1).accuracy < 0.6


def test_a_second_teacher_is_loaded_not_trained(corpus, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path))
    state = torch.get_rng_state()
    first = tiny_phones(corpus)
    assert torch.equal(torch.get_rng_state(), state)
    learn = phones.learn
    monkeypatch.setattr(phones, "learn", lambda *_: pytest.fail("trained again"))
    with caplog.at_level(logging.INFO):
        second = tiny_phones(EspeakCorpus(RATE, voices=6, utterances=2, cache=corpus.root.parent))
    assert "held-out frames" in caplog.text
    wav = noise(1, RATE)
    assert torch.equal(first(wav, RATE), second(wav, RATE))
    assert (first.identity, first.accuracy) == (second.identity, second.accuracy)

    monkeypatch.setattr(phones, "learn", learn)
    (file,) = (tmp_path / "teachers").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(tiny_phones(corpus)(wav, RATE), first(wav, RATE))  # the same steps give the same weights


def test_everything_that_shapes_it_is_in_the_key(corpus, monkeypatch, tmp_path):
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path))
    untrained = {"accuracy": "0", "chance": "0", "phones": "0"}
    monkeypatch.setattr(phones, "learn", lambda frames, *_: (frames.state_dict(), untrained))
    changes = ({}, {"width": 16}, {"blocks": 1}, {"steps": 2}, {"seed": 1})
    teachers = [tiny_phones(corpus, **change) for change in changes]
    for change in ({"utterances": 3}, {"voices": 5}, {"seed": 1}, {"holdout": 0.5}):
        options = {"voices": 6, "utterances": 2, "cache": corpus.root.parent} | change
        teachers.append(tiny_phones(EspeakCorpus(RATE, **options)))
    assert len({teacher.identity for teacher in teachers}) == len(teachers)


def test_a_corpus_that_cannot_teach_is_refused(corpus, speech_folder, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"distill\.teacher\.corpus\.sample_rate=16000"):
        tiny_phones(EspeakCorpus(24_000, voices=6, utterances=2, cache=corpus.root.parent))
    with pytest.raises(ValueError, match="needs a corpus with phones"):
        tiny_phones(FolderCorpus(speech_folder, RATE, holdout=0.25))
    (tmp_path / "file").touch()
    monkeypatch.setenv("CODEC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match="set CODEC_CACHE"):
        tiny_phones(corpus)


# Shuffled frames


@pytest.mark.parametrize("rate", [50.0, 12.5, 40.0])
def test_shuffled_features_are_the_teachers_own_in_another_order(rate):
    teacher, wav = RandomTeacher(16, 2), noise(2, RATE)
    shuffled = ShuffledTeacher(teacher, rate)
    features, wanted = shuffled(wav, RATE), to_frame_rate(teacher(wav, RATE), 50.0, rate, int(rate + 0.5))
    assert features.shape == wanted.shape
    orders = torch.cdist(features, wanted).argmin(-1)
    assert [sorted(order.tolist()) for order in orders] == [list(range(len(order))) for order in orders]
    assert (orders != torch.arange(orders.shape[1])).float().mean() > 0.7
    assert not torch.equal(*orders)  # each clip has an order of its own
    torch.testing.assert_close(features, wanted.gather(1, orders[..., None].expand_as(wanted)))
    assert torch.equal(features, ShuffledTeacher(RandomTeacher(16, 2), rate)(wav, RATE))
    other = ShuffledTeacher(teacher, rate, seed=1)
    assert not torch.equal(features, other(wav, RATE))
    assert len({shuffled.identity, other.identity, teacher.identity}) == 3
