"""python -m codec inpaint, tts and edit: audio files in and out, and one sentence for input that does not fit."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import codec.data.espeak
import codec.flow.generate
from codec.__main__ import main
from codec.data.espeak import Pronunciation
from tests.helpers.codecs import saved as saved_codec
from tests.helpers.commands import fails, misused
from tests.helpers.flow_checkpoints import saved_flow
from tests.helpers.flow_parts import HOP, RATE
from tests.helpers.signals import speechlike

SOUNDS = {"abc": ["a", "b", "c"], "cab": ["c", "a", "b"], "b": ["b"]}


def spoken(text: str, voice: str) -> Pronunciation:
    """Stands for eSpeak NG: known words, 0.1 s for a phone."""
    phones, words, letter = [], [], 0
    for word in text.split():
        words.append((letter, 0.1 * len(phones)))
        phones += [(symbol, 0.1 * (len(phones) + n)) for n, symbol in enumerate(SOUNDS.get(word, ["x"]))]
        letter += len(word) + 1
    return Pronunciation(phones, words, 0.1 * len(phones))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Flow models by their conditioning, each with its codec."""
    folder = tmp_path_factory.mktemp("models")
    names = ["aligned_phones", "characters", "phones", "aligned_phones+prompt", "none"]
    for name in names:
        saved_flow(folder / name, *name.replace("none", "").split("+") * (name != "none"))
    return {name: folder / name / "flow.ckpt" for name in names}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with in.wav, at twice the codec's rate, and v.wav, a voice."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(codec.data.espeak, "pronounce", spoken)
    soundfile.write("in.wav", speechlike(2.0, 2 * RATE, 0), 2 * RATE)
    soundfile.write("v.wav", speechlike(1.0, RATE, 1), RATE)
    return tmp_path


def run(command: str, flow: Path, *words: object, out: str = "out.wav") -> np.ndarray:
    """What the command writes."""
    main([command, *map(str, words), "--ckpt", str(flow), "-o", out, "--steps", "2", "--device", "cpu"])
    wav, rate = soundfile.read(out)
    assert rate == RATE
    return wav


def test_inpaint(models, here, capsys):
    words = ["in.wav", "--span", 0.5, 0.8, "--span", 1.2, 1.4, "--phones", "a@0.1 b@0.6"]
    out = run("inpaint", models["aligned_phones"], *words)
    assert len(out) == 2 * RATE
    said = capsys.readouterr()
    assert "in.wav -> out.wav: 2.00 s\n" in said.out
    assert "100% |" in said.err
    assert [path.name for path in here.iterdir() if "unfinished" in path.name] == []
    run("inpaint", models["aligned_phones"], *words, out="deep/again.wav")
    assert Path("deep/again.wav").read_bytes() == Path("out.wav").read_bytes()
    other = run("inpaint", models["aligned_phones"], *words, "--seed", 1, out="other.flac")
    assert not np.array_equal(other, out)
    codec = models["aligned_phones"].with_name("codec.ckpt")
    named = run("inpaint", models["aligned_phones"], *words, "--codec-ckpt", codec, "--force")
    assert np.array_equal(named, out)
    decoded = run("inpaint", models["aligned_phones"], *words, "--resynthesise", out="decoded.wav")
    assert not np.array_equal(decoded[:300], out[:300])
    run("inpaint", models["aligned_phones+prompt"], *words, "--prompt", "v.wav", out="prompted.wav")
    run("inpaint", models["none"], "in.wav", "--span", 0.0, 2.0, out="free.wav")


def test_what_is_said_can_stand_in_a_manifest_or_be_read_by_espeak(models, here):
    span = ["in.wav", "--span", 0.5, 0.8]
    said = run("inpaint", models["characters"], *span, "--text", "abc cab")
    phones = run("inpaint", models["phones"], *span, "--phones", "a b c", out="phones.wav")
    assert np.array_equal(run("inpaint", models["phones"], *span, "--text", "abc", out="text.wav"), phones)
    timed = run("inpaint", models["aligned_phones"], *span, "--phones", "a@0.1 b@0.6", out="timed.wav")
    Path("manifest.csv").write_text("file,text,phones\nother.wav,b,\nin.wav,abc cab,a@0.1 b@0.6\n")
    assert np.array_equal(run("inpaint", models["characters"], *span, out="a.wav"), said)
    assert np.array_equal(run("inpaint", models["aligned_phones"], *span, out="b.wav"), timed)


def test_tts(models, here):
    assert len(run("tts", models["aligned_phones"], "abc cab")) == round(0.6 * RATE)
    assert len(run("tts", models["characters"], "abc", "--seconds", 1.2, out="text.wav")) == round(1.2 * RATE)
    first = run("tts", models["phones"], "abc", out="first.wav")
    assert not np.array_equal(first, run("tts", models["phones"], "cab", out="second.wav"))
    prompted = models["aligned_phones+prompt"]
    assert len(run("tts", prompted, "abc", "--prompt", "v.wav", out="p.wav")) == round(0.3 * RATE)
    # a second for five phones: a fifth of a second for each
    words = ["abc", "--prompt", "v.wav", "--prompt-text", "abc b b"]
    assert len(run("tts", prompted, *words, out="pace.wav")) == round(0.6 * RATE)


def test_a_model_without_prompts_goes_on_from_one(models, here):
    words = ["abc", "--prompt", "v.wav", "--prompt-text", "abc b b"]
    one = run("tts", models["characters"], *words, out="one.wav")
    assert len(one) == round(0.6 * RATE)  # what is new, and no more
    soundfile.write("v.wav", speechlike(1.0, RATE, 9), RATE)
    assert not np.array_equal(one, run("tts", models["characters"], *words, out="other.wav"))
    assert len(run("tts", models["aligned_phones"], *words, out="timed.wav")) == len(one)


def test_edit(models, here):
    Path("manifest.csv").write_text("file,text,phones\nin.wav,abc b cab,a@0 b@0.2 c@0.4 b@0.6 c@0.8 a@1.0 b@1.2\n")
    for name in ("aligned_phones", "characters", "aligned_phones+prompt"):
        out = run("edit", models[name], "in.wav", "--old", "b", "--new", "cab", out=f"{name}.wav")
        # two phones more, each 0.2 s as in the recording; before and after, it is the recording
        assert len(out) == 2 * RATE + round(0.4 * RATE)
        fade = round(codec.flow.generate.FADE * RATE)
        if name == "characters":
            plain = run("inpaint", models["none"], "in.wav", "--span", 0.7, 0.75, out="plain.wav")
            assert np.array_equal(out[: int(0.6 * RATE) - fade], plain[: int(0.6 * RATE) - fade])
            assert np.array_equal(out[int(1.2 * RATE) + fade :], plain[int(0.8 * RATE) + fade :])


INPAINT, SPAN = ["inpaint", "in.wav"], ["--span", 0.5, 0.8]
BAD = [
    ("none", [*INPAINT, "--span", 0.8, 0.5], "the span from 0.8 to 0.5 s ends before it begins"),
    ("none", [*INPAINT, "--span", 1.9, 2.1], "not within the recording, which is 2.00 s long"),
    ("none", [*INPAINT, "--span", 1.0, 1.001], "shorter than a latent frame, which is 0.01 s"),
    ("aligned_phones", [*INPAINT, *SPAN], "conditioned on timed phones"),
    ("aligned_phones", [*INPAINT, *SPAN, "--phones", "a b"], "give the start time of each phone"),
    ("aligned_phones", [*INPAINT, *SPAN, "--phones", "a@x"], "each with its start in seconds"),
    (
        "aligned_phones",
        [*INPAINT, *SPAN, "--phones", "b@0.5 a@0.1"],
        "each with its start in seconds, in their order",
    ),
    ("aligned_phones", [*INPAINT, *SPAN, "--phones", "a@-1 b@0.5"], "each with its start in seconds"),
    ("aligned_phones", [*INPAINT, *SPAN, "--phones", "a@0 b@2"], "b begins at 2 s, and the recording is 2.00 s long"),
    ("aligned_phones", [*INPAINT, *SPAN, "--phones", "x@0.1"], "not trained on the phone 'x'; valid: _ a b c"),
    ("aligned_phones", [*INPAINT, *SPAN, "--text", "abc"], "conditioned on phones, not on --text"),
    ("none", [*INPAINT, *SPAN, "--prompt", "v.wav"], "conditioned on nothing, not on --prompt"),
    ("characters", [*INPAINT, *SPAN, "--text", " "], "the text is empty"),
    ("characters", [*INPAINT, *SPAN], "the text given is empty"),
    ("characters", [*INPAINT, *SPAN, "--text", "abd"], "not trained on the character 'd'"),
    ("phones", [*INPAINT, *SPAN], "the text is empty"),
    ("characters", [*INPAINT, *SPAN, "--text", "a", "--sampler", "rk4"], "sampler=rk4: choose euler or midpoint"),
    ("characters", ["inpaint", "bad.wav", *SPAN, "--text", "a"], "bad.wav: cannot be decoded"),
    ("aligned_phones+prompt", ["tts", "abc", "--prompt", "short.wav"], "the prompt is shorter than a latent frame"),
    ("aligned_phones+prompt", ["tts", "abc", "--prompt", "no.wav"], "no.wav: is missing"),
    ("aligned_phones+prompt", ["tts", "abc"], "give a recording of the voice"),
    ("aligned_phones", ["tts", "\n"], "the text is empty"),
    ("aligned_phones", ["tts", "dog"], "not trained on the phone 'x'"),
    ("aligned_phones", ["tts", "abc", "--seconds", 0.001], "shorter than a latent frame"),
    ("aligned_phones", ["tts", "abc", "--seconds", 0], "shorter than a latent frame"),
    ("aligned_phones", ["tts", "abc", "--prompt-text", "abc"], "give --prompt, too"),
    ("none", ["tts", "abc"], "cannot speak a text"),
    ("characters", ["tts", "abc", "--prompt", "v.wav"], "can continue one: give its text, --prompt-text"),
    (
        "characters",
        ["tts", "abc", "--prompt", "short.wav", "--prompt-text", "a"],
        "the prompt is shorter than a latent",
    ),
    ("characters", ["tts", "abc", "--seconds", 5], "5.0 s are more than the 4.0 s that this model was trained on"),
    ("none", ["edit", "in.wav", "--old", "b", "--new", "cab"], "the text is empty"),
    ("none", ["edit", "in.wav", "--old", "b", "--new", " ", "--text", "abc b"], "the text is empty"),
    ("none", ["edit", "in.wav", "--old", "d", "--new", "b", "--text", "abc b"], "'d' is not in the text"),
    ("none", ["edit", "in.wav", "--old", "b", "--new", "cab", "--text", "abc b"], "give phones with their start times"),
    ("none", ["edit", "in.wav", "--old", "b", "--new", "c", "--text", "abc b", "--phones", "a@9"], "a begins at 9 s"),
    ("codec", [*INPAINT, *SPAN], "is no checkpoint of a flow"),
    ("flow as codec", [*INPAINT, *SPAN], "is no checkpoint of a codec"),
    ("another codec", [*INPAINT, *SPAN], "of another codec's latents"),
    ("none", [*INPAINT, *SPAN, "-o", "out.xyz"], "out.xyz: cannot be written: its ending names no audio format"),
]


@pytest.mark.parametrize(("model", "words", "sentence"), [(*case[:2], case[2:]) for case in BAD])
def test_bad_input_ends_in_one_sentence(models, here, model, words, sentence):
    soundfile.write("short.wav", np.zeros(HOP - 1), RATE)
    Path("bad.wav").write_text("no sound")
    flow = models["none"]
    choice = {
        "codec": [flow.with_name("codec.ckpt")],
        "flow as codec": [flow, "--codec-ckpt", flow],
        "another codec": [flow, "--codec-ckpt", here / "other.ckpt"],
    }
    if model == "another codec":
        saved_codec(here / "other.ckpt", "none", seed=1)
    given = choice.get(model) or [models[model]]
    fails([*words[:1], "--ckpt", *given, "-o", "out.wav", *words[1:]], *sentence)
    assert not Path("out.wav").exists()


@pytest.mark.parametrize(
    "words", [["--span", "a", 1], ["--span", 1, "nan"], ["--seed", -1], ["--guidance", "inf"], ["--steps", 0]]
)
def test_what_is_no_number_is_refused_with_the_usage(here, words, capsys):
    more = [] if "--span" in words else SPAN
    misused(capsys, [*INPAINT, *words, *more, "--ckpt", "a.ckpt", "-o", "a.wav"], f"argument {words[0]}", "is not a")
